"""The journal: SQL tables that hold the only truth about runs. Nothing outside this room speaks SQL."""
