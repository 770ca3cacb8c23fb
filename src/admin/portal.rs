//! What a console session was asked and has to show, in both forms of the protocol.

use pooler_protocol::backend::{
    Field, Report, write_command_complete, write_data_row, write_notice, write_row_description,
};

use super::act::{Done, act, notice};
use super::command::{self, Does, Given, Rank};
use super::serve::{SETTINGS, Setting};
use super::sheet::{Cell, Kind};
use super::{Desk, words};
use crate::error::Refusal;

/// What somebody who may not see it gets for the text of a statement, as in `pg_stat_activity`.
pub(super) const HIDDEN: &str = "<insufficient privilege>";

/// A statement that was read.
#[derive(Clone)]
pub(super) enum Request {
    /// Nothing was asked.
    Empty,
    /// What drivers ask every server.
    Setting(&'static Setting),
    /// What drivers set on every server, and means nothing here.
    SetNothing,
    /// A command.
    Given(Given),
}

impl Request {
    /// What `text` asks for.
    ///
    /// # Errors
    /// What is wrong with it, or that it is not for `rank`.
    pub(super) fn read(text: &str, rank: Rank) -> Result<Self, Refusal> {
        // Whoever got in may say these, because drivers do so of their own accord.
        let words = words::split(text)?;
        let is = |word: &String, what: &str| word.eq_ignore_ascii_case(what);
        let setting = |name| SETTINGS.iter().find(|s| is(name, s.name));
        match words.as_slice() {
            _ if rank == Rank::Stranger => {}
            [show, name] if is(show, "show") => {
                if let Some(setting) = setting(name) {
                    return Ok(Self::Setting(setting));
                }
            }
            [set, name, _, _, ..] if is(set, "set") && setting(name).is_some() => {
                return Ok(Self::SetNothing);
            }
            _ => {}
        }
        let given = command::read(text, rank)?;
        Ok(given.map_or(Self::Empty, Self::Given))
    }

    /// The columns of what it shows, if it shows anything.
    pub(super) fn heads(&self) -> Option<Vec<(&'static str, Kind)>> {
        match self {
            Self::Setting(setting) => Some(vec![(setting.name, Kind::Text)]),
            Self::Given(given) => match &given.command.does {
                Does::Show(sheet, _) => Some(sheet.heads()),
                Does::Act(_) => None,
            },
            Self::Empty | Self::SetNothing => None,
        }
    }

    /// Does it. Dropped midway: see [`act`].
    ///
    /// # Errors
    /// What the operator is told.
    pub(super) async fn run(&self, desk: &Desk, rank: Rank) -> Result<Output, Refusal> {
        let (rows, done) = match self {
            Self::Empty => (Vec::new(), Done::default()),
            Self::SetNothing => {
                let done = Done {
                    notices: vec![notice("SET ignored", String::new())],
                    tag: "SET".to_owned(),
                };
                (Vec::new(), done)
            }
            Self::Setting(setting) => (vec![vec![Some(setting.value.to_owned())]], shown()),
            Self::Given(given) => match &given.command.does {
                Does::Act(verb) => (Vec::new(), act(desk, *verb, given).await?),
                Does::Show(sheet, scope) => {
                    let mut view = desk.look(*scope).await;
                    view.asked = given.arguments.concat();
                    view.words.clone_from(&given.arguments);
                    if rank < Rank::Admin {
                        view.hide_texts(HIDDEN);
                    }
                    (sheet.rows(desk, &view), shown())
                }
            },
        };
        Ok(Output {
            kinds: self
                .heads()
                .unwrap_or_default()
                .into_iter()
                .map(|(_, kind)| kind)
                .collect(),
            rows,
            done,
        })
    }
}

fn shown() -> Done {
    Done {
        notices: Vec::new(),
        tag: "SHOW".to_owned(),
    }
}

/// What came of a request.
pub(super) struct Output {
    kinds: Vec<Kind>,
    rows: Vec<Vec<Cell>>,
    done: Done,
}

impl Output {
    /// Appends rows and end, in these formats.
    pub(super) fn write(&self, formats: &Formats, out: &mut Vec<u8>) {
        for notice in &self.done.notices {
            let report = Report {
                severity: notice.severity,
                sqlstate: if notice.severity == "NOTICE" {
                    "00000"
                } else {
                    "01000"
                },
                message: &notice.message,
                detail: &notice.detail,
                hint: "",
            };
            write_notice(out, &report);
        }
        for row in &self.rows {
            let cells = row.iter().zip(&self.kinds).enumerate();
            let value = |(at, (cell, kind)): (usize, (&Cell, &Kind))| {
                let text = cell.as_deref()?;
                Some(match formats.of(at) {
                    0 => text.as_bytes().to_vec(),
                    _ => kind.binary(text),
                })
            };
            write_data_row(out, cells.map(value));
        }
        write_command_complete(out, &self.done.tag);
    }
}

/// Appends RowDescription.
pub(super) fn write_heads(heads: &[(&'static str, Kind)], formats: &Formats, out: &mut Vec<u8>) {
    let field = |(at, (name, kind)): (usize, &(&'static str, Kind))| {
        let (oid, len) = kind.type_of();
        let format = formats.of(at);
        Field {
            name,
            oid,
            len,
            format,
        }
    };
    write_row_description(out, heads.iter().enumerate().map(field));
}

/// The formats that a Bind asks for: none is text, one is for all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Formats(Vec<u16>);

impl Formats {
    /// Those behind the names in the body of a Bind without parameters.
    ///
    /// # Errors
    /// 08P01, if it has parameters or is malformed.
    pub(super) fn read(rest: &[u8]) -> Result<Self, Refusal> {
        let mut numbers = rest
            .chunks_exact(2)
            .map(|two| u16::from_be_bytes([two[0], two[1]]));
        let mut next = || {
            numbers
                .next()
                .ok_or_else(|| malformed("a Bind is cut short"))
        };
        for _ in 0..next()? {
            next()?;
        }
        if next()? != 0 {
            return Err(malformed("the console's commands have no parameters"));
        }
        let count = next()?;
        (0..count)
            .map(|_| next())
            .collect::<Result<_, _>>()
            .map(Self)
    }

    fn of(&self, column: usize) -> u16 {
        match self.0.as_slice() {
            [] => 0,
            [all] => *all,
            each => each.get(column).copied().unwrap_or(0),
        }
    }
}

/// The client broke the rules, but it is still clear where the next message begins.
pub(super) fn malformed(what: &str) -> Refusal {
    Refusal::error("08P01", what)
}

impl Kind {
    /// A value in PostgreSQL's binary form.
    fn binary(self, text: &str) -> Vec<u8> {
        match self {
            Self::Text => text.as_bytes().to_vec(),
            Self::Int4 => text
                .parse::<i32>()
                .unwrap_or(i32::MAX)
                .to_be_bytes()
                .to_vec(),
            Self::Int8 => text
                .parse::<i64>()
                .unwrap_or(i64::MAX)
                .to_be_bytes()
                .to_vec(),
            Self::Numeric => numeric(text.parse().unwrap_or(u64::MAX)),
        }
    }
}

/// A whole number as a `numeric`: its digits to the base of 10000, the weight of the first, no sign, and
/// none behind the point.
fn numeric(mut n: u64) -> Vec<u8> {
    let mut digits = Vec::new();
    while n > 0 {
        digits.push(u16::try_from(n % 10_000).unwrap_or(0));
        n /= 10_000;
    }
    let count = u16::try_from(digits.len()).unwrap_or(0);
    let head = [count, count.saturating_sub(1), 0, 0];
    let words = head.into_iter().chain(digits.into_iter().rev());
    words.flat_map(u16::to_be_bytes).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_are_numerics() {
        assert_eq!(numeric(0), [0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(numeric(7), [0, 1, 0, 0, 0, 0, 0, 0, 0, 7]);
        let n = numeric(120_000_001);
        assert_eq!(n, [0, 3, 0, 2, 0, 0, 0, 0, 0, 1, 7, 208, 0, 1]);
    }

    #[test]
    fn formats_are_for_each_column_or_for_all() {
        let read = |bytes: &[u8]| Formats::read(bytes).map_err(|e| e.sqlstate);
        assert_eq!(read(&[0, 0, 0, 0, 0, 0]), Ok(Formats(vec![])));
        let one = read(&[0, 0, 0, 0, 0, 1, 0, 1]).expect("formats");
        assert_eq!((one.of(0), one.of(9)), (1, 1));
        let two = read(&[0, 0, 0, 0, 0, 2, 0, 0, 0, 1]).expect("formats");
        assert_eq!((two.of(0), two.of(1), two.of(2)), (0, 1, 0));
        for wrong in [&[][..], &[0, 0], &[0, 0, 0, 1, 0, 0], &[0, 0, 0, 0, 0, 9]] {
            assert_eq!(read(wrong), Err("08P01".to_owned()), "{wrong:?}");
        }
    }
}
