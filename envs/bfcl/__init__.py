"""BFCL: function calling over several turns, and single calls judged by their form."""
