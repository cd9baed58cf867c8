"""An hour of steady load on real processes: does memory grow, do handles leak, does the lag hold, is anything lost."""
