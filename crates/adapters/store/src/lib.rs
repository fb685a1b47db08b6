//! Where the journal lives: `SQLite`.

pub mod sqlite;

pub use sqlite::SqliteJournal;
