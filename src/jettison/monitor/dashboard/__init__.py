"""The live pages: what a gateway's log, experiments, releases and alarms say, for people to look at."""
