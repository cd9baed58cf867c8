# One image for every role of Sluice; EXTRAS says how much of it. A subscriber needs none: no torch, no Kafka tools.
#   docker build --build-arg EXTRAS=share .
FROM python:3.12-slim

ARG EXTRAS=""
# The same user id as in apache/kafka's image: the broker's settings, readable by their owner alone, are made here.
RUN useradd --uid 1000 --create-home sluice \
    && install -d -o sluice -g sluice -m 700 /var/lib/sluice
WORKDIR /opt/sluice
COPY pyproject.toml README.md LICENSE requirements.lock ./
COPY schemas schemas
COPY producers producers
COPY streams streams
COPY trainers trainers
COPY sluice sluice
# The lock says which versions, the extra which of them.
RUN sed -e 's/ *\\$//' -e '/^ *--hash/d' requirements.lock > constraints.txt \
    && pip install --no-cache-dir -c constraints.txt ".${EXTRAS:+[$EXTRAS]}" \
    && rm -r /opt/sluice/*
USER sluice
ENV SLUICE_HOME=/var/lib/sluice PYTHONUNBUFFERED=1
CMD ["sluice", "--help"]
