"""The day-one report: what a log tells of its requests, of what a head would have carried, and of the money."""
