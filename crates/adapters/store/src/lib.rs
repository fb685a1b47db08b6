//! Where the journal lives: SQLite.
