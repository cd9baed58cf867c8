"""What `sluice contract new | check | try` say about a contract. No Kafka in here."""
