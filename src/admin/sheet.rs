//! What a SHOW shows: columns, one row each with name, type and where its value comes from.

use super::{Desk, View};

/// The type of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// `text`
    Text,
    /// `int4`
    Int4,
    /// `int8`
    Int8,
    /// `numeric`
    Numeric,
}

impl Kind {
    /// Object id and length of the type in PostgreSQL.
    pub(super) fn type_of(self) -> (u32, i16) {
        match self {
            Self::Text => (25, -1),
            Self::Int4 => (23, 4),
            Self::Int8 => (20, 8),
            Self::Numeric => (1700, -1),
        }
    }
}

/// A value as text; `None` is NULL.
pub(super) type Cell = Option<String>;

/// Of a line that is an `L`.
pub(super) struct Column<L> {
    name: &'static str,
    kind: Kind,
    value: fn(&L) -> Cell,
}

/// `text`
pub(super) const fn text<L>(name: &'static str, value: fn(&L) -> Cell) -> Column<L> {
    let kind = Kind::Text;
    Column { name, kind, value }
}

/// `int4`
pub(super) const fn int4<L>(name: &'static str, value: fn(&L) -> Cell) -> Column<L> {
    let kind = Kind::Int4;
    Column { name, kind, value }
}

/// `int8`
pub(super) const fn int8<L>(name: &'static str, value: fn(&L) -> Cell) -> Column<L> {
    let kind = Kind::Int8;
    Column { name, kind, value }
}

/// `numeric`
pub(super) const fn numeric<L>(name: &'static str, value: fn(&L) -> Cell) -> Column<L> {
    let kind = Kind::Numeric;
    Column { name, kind, value }
}

/// A value that is there.
#[expect(clippy::unnecessary_wraps, reason = "it is what a column's value is")]
pub(super) fn is(value: impl ToString) -> Cell {
    Some(value.to_string())
}

/// A number for an `int4`: what does not fit is the largest.
pub(super) fn count(n: usize) -> Cell {
    is(i32::try_from(n).unwrap_or(i32::MAX))
}

/// 1 or 0.
pub(super) fn flag(set: bool) -> Cell {
    is(i32::from(set))
}

/// Columns, and the lines that they are filled from.
pub(super) struct Sheet<L: 'static> {
    pub(super) columns: &'static [Column<L>],
    pub(super) lines: fn(&Desk, &View) -> Vec<L>,
}

/// A sheet, whatever its lines are.
pub(super) trait Shown: Sync {
    /// Names and types.
    fn heads(&self) -> Vec<(&'static str, Kind)>;
    /// Values.
    fn rows(&self, desk: &Desk, view: &View) -> Vec<Vec<Cell>>;
}

impl<L> Shown for Sheet<L> {
    fn heads(&self) -> Vec<(&'static str, Kind)> {
        self.columns.iter().map(|c| (c.name, c.kind)).collect()
    }

    fn rows(&self, desk: &Desk, view: &View) -> Vec<Vec<Cell>> {
        let lines = (self.lines)(desk, view);
        let row = |line| self.columns.iter().map(|c| (c.value)(line)).collect();
        lines.iter().map(row).collect()
    }
}
