//! The tables: medians over the rounds, as Markdown for the file and for the terminal.

use crate::cases::{Case, Measured, Outcome};
use crate::peers::Kind;

/// One column: its heading, what it shows of a measurement, and how many decimals.
struct Column {
    heading: &'static str,
    value: fn(&Measured) -> Option<f64>,
    decimals: usize,
}

const TRANSACTIONS: &[Column] = &[
    column("transactions/s", |m| window(m, |w| Some(w.per_second)), 0),
    column("p50 us", |m| window(m, |w| Some(w.p50)), 0),
    column("p99 us", |m| window(m, |w| Some(w.p99)), 0),
    column("p99.9 us", |m| window(m, |w| Some(w.p999)), 0),
    column("CPU us/transaction", |m| window(m, |w| w.cpu), 2),
];
const LOGINS: &[Column] = &[
    column("logins/s", |m| window(m, |w| Some(w.per_second)), 0),
    column("CPU us/login", |m| window(m, |w| w.cpu), 1),
];
const LARGE: &[Column] = &[
    column("MB/s", |m| flow(m, |f| Some(f.megabytes_per_second)), 0),
    column("CPU us/MB", |m| flow(m, |f| f.cpu), 0),
];
const STORM: &[Column] = &[
    column("p99 us alone", |m| storm(m, |s| Some(s.p99[0])), 0),
    column(
        "with a storm elsewhere",
        |m| storm(m, |s| Some(s.p99[1])),
        0,
    ),
    column("with the storm here", |m| storm(m, |s| Some(s.p99[2])), 0),
    column(
        "here/elsewhere",
        |m| storm(m, |s| Some(s.p99[2] / s.p99[1])),
        2,
    ),
    column("here/alone", |m| storm(m, |s| Some(s.p99[2] / s.p99[0])), 2),
    column(
        "logins/s in the storm",
        |m| storm(m, |s| Some(s.logins_per_second)),
        0,
    ),
    column("CPU us/login", |m| storm(m, |s| s.cpu), 1),
];
const IDLE: &[Column] = &[
    column(
        "resident bytes a client",
        |m| memory(m, |m| Some(m.per_client)),
        0,
    ),
    column(
        "after a 10 MB reply to one",
        |m| memory(m, |m| Some(m.per_client_after_large)),
        0,
    ),
];

const fn column(
    heading: &'static str,
    value: fn(&Measured) -> Option<f64>,
    decimals: usize,
) -> Column {
    Column {
        heading,
        value,
        decimals,
    }
}

fn window(measured: &Measured, field: fn(&crate::pgbench::Window) -> Option<f64>) -> Option<f64> {
    if let Measured::Window(window) = measured {
        field(window)
    } else {
        None
    }
}

fn flow(measured: &Measured, field: fn(&crate::large::Flow) -> Option<f64>) -> Option<f64> {
    if let Measured::Flow(flow) = measured {
        field(flow)
    } else {
        None
    }
}

fn storm(measured: &Measured, field: fn(&crate::storm::Storm) -> Option<f64>) -> Option<f64> {
    if let Measured::Storm(storm) = measured {
        field(storm)
    } else {
        None
    }
}

fn memory(measured: &Measured, field: fn(&crate::idle::Memory) -> Option<f64>) -> Option<f64> {
    if let Measured::Memory(memory) = measured {
        field(memory)
    } else {
        None
    }
}

/// The columns of a case, and which of them is compared with PgBouncer's.
fn columns(case: &Case) -> (&'static [Column], usize) {
    match case {
        Case::Transactions(_) | Case::Watched(_) => (TRANSACTIONS, 4),
        Case::Logins(_) => (LOGINS, 1),
        Case::Storm { .. } => (STORM, 2),
        Case::Large(_) => (LARGE, 1),
        Case::Idle { .. } => (IDLE, 0),
    }
}

/// One measurement in a line, for whoever watches.
pub(crate) fn line(case: &Case, measured: &Measured) -> String {
    let cells = columns(case).0.iter().filter_map(|column| {
        let value = (column.value)(measured)?;
        Some(format!("{} {value:.*}", column.heading, column.decimals))
    });
    cells.collect::<Vec<_>>().join(", ")
}

/// A heading and a table.
pub(crate) fn table(outcome: &Outcome) -> String {
    let (columns, _) = columns(&outcome.case);
    let mut text = format!("### {}\n\n| |", outcome.case.name());
    for column in columns {
        text.push_str(&format!(" {} |", column.heading));
    }
    let heading = match outcome.is_watched() {
        true => " of nothing watched |\n|---|",
        false => " of PgBouncer's |\n|---|",
    };
    text.push_str(heading);
    text.push_str(&"---:|".repeat(columns.len() + 1));
    text.push('\n');
    for (kind, rounds) in &outcome.rows {
        text.push_str(&format!("| {} |", kind.name()));
        for column in columns {
            let cell = median(rounds.iter().filter_map(column.value))
                .map(|v| format!("{v:.*}", column.decimals));
            text.push_str(&format!(" {} |", cell.unwrap_or_default()));
        }
        text.push_str(&format!(" {} |\n", relative(outcome, rounds)));
    }
    let lost: usize = outcome
        .rows
        .iter()
        .flat_map(|(_, rounds)| rounds)
        .map(lost_threads)
        .sum();
    if lost > 0 {
        text.push_str(&format!(
            "\n{lost} threads ended within a window; their CPU time is not counted.\n"
        ));
    }
    text
}

/// What is compared, relative to PgBouncer's, or to a pooler of which nothing is watched; round by round, because both were measured in the same minute.
fn relative(outcome: &Outcome, rounds: &[Measured]) -> String {
    let (columns, compared) = columns(&outcome.case);
    let value = columns[compared].value;
    let reference = match outcome.is_watched() {
        true => Kind::Watched { all: false },
        false => Kind::PgBouncer,
    };
    let reference = outcome.rows.iter().find(|(kind, _)| *kind == reference);
    let pairs = reference
        .into_iter()
        .flat_map(|(_, reference)| rounds.iter().zip(reference));
    let ratios = pairs.filter_map(|(own, other)| Some(value(own)? / value(other)?));
    median(ratios).map_or_else(String::new, |ratio| format!("{ratio:.2}"))
}

/// Every case in a line: CPU time (idle clients: memory, storms: the steady clients' p99) relative to PgBouncer's.
pub(crate) fn summary(outcomes: &[Outcome]) -> String {
    let mut kinds: Vec<Kind> = Vec::new();
    let outcomes = || outcomes.iter().filter(|outcome| !outcome.is_watched());
    for (kind, _) in outcomes().flat_map(|outcome| &outcome.rows) {
        if *kind != Kind::Direct && !kinds.contains(kind) {
            kinds.push(*kind);
        }
    }
    let mut text = String::from("| CPU time relative to PgBouncer's |");
    for kind in &kinds {
        text.push_str(&format!(" {} |", kind.name()));
    }
    text.push_str(&format!("\n|---|{}\n", "---:|".repeat(kinds.len())));
    for outcome in outcomes() {
        let what = match outcome.case {
            Case::Idle { .. } => " (memory)",
            Case::Storm { .. } => " (p99)",
            _ => "",
        };
        text.push_str(&format!("| {}{what} |", outcome.case.name()));
        for kind in &kinds {
            let rounds = outcome
                .rows
                .iter()
                .find(|(other, _)| other == kind)
                .map(|(_, rounds)| rounds);
            let cell = rounds.map_or_else(String::new, |rounds| relative(outcome, rounds));
            text.push_str(&format!(" {cell} |"));
        }
        text.push('\n');
    }
    text
}

fn lost_threads(measured: &Measured) -> usize {
    if let Measured::Window(window) = measured {
        window.lost_threads
    } else {
        0
    }
}

fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_unstable_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        odd if odd % 2 == 1 => Some(values[middle]),
        _ => Some((values[middle - 1] + values[middle]) / 2.0),
    }
}

/// The whole file.
pub(crate) fn file(head: &[String], outcomes: &[Outcome]) -> String {
    let mut text = String::from(
        "# Results\n\nWritten by `make bench`; what it does is in `benches/compare/`.\n\n",
    );
    for line in head {
        text.push_str(&format!("- {line}\n"));
    }
    text.push_str(&format!("\n{}", summary(outcomes)));
    for outcome in outcomes {
        text.push_str(&format!("\n{}", table(outcome)));
    }
    text
}
