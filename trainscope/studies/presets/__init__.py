"""Studies that come with trainscope: tables of papers, in full size and in small."""
