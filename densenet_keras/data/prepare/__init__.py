"""Pictures to records: sources are listed, split, judged, written as shards and published as a data set."""
