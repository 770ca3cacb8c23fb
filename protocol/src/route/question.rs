//! The question by which a database is asked for its names.

/// See [`super::Catalogue`].
pub const QUESTION: &str = "SELECT 'safe', 'lower'";
