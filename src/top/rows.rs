//! The sections of a frame, row by row. What clients call themselves is cut and stripped of control
//! characters again: the status may come from anywhere.

use ratatui::style::Style;
use ratatui::text::{Line, Span};

use super::frame::{ACCENT, BOLD, DIM, GOOD, HOT, Section, Sort, WARN};
use super::words::{bytes, named, rate, time, time_or_dash};
use crate::status::{Pool, Status, name};

/// Heights of a line of a chart, lowest first.
const STEPS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// `text` in `width` columns: cut, or filled up with spaces.
fn fit(text: &str, width: usize) -> String {
    let mut cut = name(text);
    while Span::raw(&*cut).width() > width {
        cut.pop();
        if Span::raw(&*cut).width() < width {
            cut.push('…');
            if Span::raw(&*cut).width() <= width {
                break;
            }
            cut.pop();
        }
    }
    let have = Span::raw(&*cut).width();
    cut.extend(std::iter::repeat_n(' ', width.saturating_sub(have)));
    cut
}

/// The same at the right.
fn right(text: &str, width: usize) -> String {
    format!("{text:>width$}")
}

fn none(what: &'static str) -> Vec<Line<'static>> {
    vec![Line::styled(what, DIM)]
}

fn note(shown: usize, left_out: usize) -> String {
    match left_out {
        0 => String::new(),
        n => format!("{shown} of {}", shown + n),
    }
}

/// Who waits, and for whom.
pub(super) fn waiting(status: &Status, width: u16) -> Section {
    let wide = usize::from(width);
    let application = (wide / 5).clamp(8, 28);
    let whose = (wide / 4).clamp(10, 36);
    let mut rows: Vec<Line<'static>> = Vec::new();
    for waiter in &status.waiting {
        let mut spans = vec![
            Span::styled(format!("#{:<3}", waiter.position), DIM),
            Span::styled(fit(named(&waiter.application_name), application), BOLD),
            Span::raw(" "),
            Span::styled(right(&time(waiter.waited_seconds), 12), HOT),
            Span::raw("  "),
            Span::raw(fit(&format!("{}@{}", waiter.user, waiter.database), whose)),
        ];
        if let Some(holder) = &waiter.holder {
            spans.push(Span::styled(" behind ", DIM));
            spans.push(Span::raw(name(named(&holder.application_name))));
            let since = time(holder.held_seconds);
            spans.push(Span::styled(format!(", {since}"), DIM));
        }
        rows.push(Line::from(spans));
    }
    Section {
        title: "Who waits".to_owned(),
        note: note(status.waiting.len(), status.left_out.waiting),
        rows: if rows.is_empty() {
            none("nobody waits for a server connection")
        } else {
            rows
        },
    }
}

/// Who has a server, since when, and what it runs.
pub(super) fn holding(status: &Status, width: u16) -> Section {
    let wide = usize::from(width);
    let application = (wide / 5).clamp(8, 28);
    let mut rows: Vec<Line<'static>> = Vec::new();
    for holder in &status.holding {
        let (short, style) = match &*holder.state {
            "idle in transaction" => ("idle in tx", WARN),
            "active" => ("active", GOOD),
            _ => ("idle", DIM),
        };
        let behind = match holder.waiting {
            0 => String::new(),
            n => format!("{n} wait"),
        };
        rows.push(Line::from(vec![
            Span::styled(fit(named(&holder.application_name), application), BOLD),
            Span::raw(" "),
            Span::raw(right(&time(holder.held_seconds), 12)),
            Span::raw("  "),
            Span::styled(fit(short, 10), style),
            Span::raw(" "),
            Span::styled(fit(&behind, 9), HOT),
            Span::styled(
                format!("{}@{} ", name(&holder.user), name(&holder.database)),
                DIM,
            ),
            Span::raw(name(&holder.statement)),
        ]));
    }
    Section {
        title: "Who holds a server".to_owned(),
        note: note(status.holding.len(), status.left_out.holding),
        rows: if rows.is_empty() {
            none("nobody has a server connection now")
        } else {
            rows
        },
    }
}

/// Pools, each with a bar.
pub(super) fn pools(status: &Status, sort: Sort, width: u16) -> Section {
    let mut pools: Vec<&Pool> = status.pools.iter().collect();
    let by_name = |p: &Pool| (p.database.clone(), p.user.clone(), p.host.clone());
    match sort {
        // As it came.
        Sort::Wait => {}
        Sort::Active => pools.sort_by_key(|p| (std::cmp::Reverse(p.active), by_name(p))),
        Sort::Clients => pools.sort_by_key(|p| (std::cmp::Reverse(p.clients), by_name(p))),
        Sort::Name => pools.sort_by_key(|p| by_name(p)),
    }
    let rows: Vec<Line<'static>> = pools.into_iter().map(|p| pool(p, width)).collect();
    Section {
        title: "Pools".to_owned(),
        note: note(status.pools.len(), status.left_out.pools),
        rows: if rows.is_empty() {
            none("no client has logged in yet")
        } else {
            rows
        },
    }
}

fn pool(pool: &Pool, width: u16) -> Line<'static> {
    let wide = usize::from(width);
    let title = (wide / 3).clamp(10, 40);
    let bar = (wide / 5).clamp(6, 30);
    let mut label = format!("{} / {}", pool.database, pool.user);
    if pool.role == "replica" {
        let place = [&*pool.datacenter, pool.host.as_deref().unwrap_or_default()];
        label = format!("{label} on {}", place.join(" ").trim());
    }
    let mut spans = vec![Span::styled(fit(&label, title), BOLD), Span::raw(" ")];
    spans.extend(bar_of(pool, bar));
    spans.push(Span::raw(right(
        &format!("{}/{}", pool.active, pool.size),
        8,
    )));
    spans.push(Span::styled(right(&format!("{} cl", pool.clients), 9), DIM));
    if pool.waiting > 0 {
        let said = format!(
            "  {} wait, {}",
            pool.waiting,
            time(pool.oldest_wait_seconds)
        );
        spans.push(Span::styled(said, HOT));
    }
    if pool.paused {
        spans.push(Span::styled("  paused", WARN));
    }
    Line::from(spans)
}

/// In use, idle, being opened, not open: in proportion, and at least one character of what there is.
fn bar_of(pool: &Pool, width: usize) -> Vec<Span<'static>> {
    let closed = pool
        .size
        .saturating_sub(pool.active + pool.idle + pool.connecting);
    let parts: [(usize, char, Style); 4] = [
        (
            pool.active,
            '█',
            if pool.waiting > 0 { HOT } else { ACCENT },
        ),
        (pool.connecting, '▒', ACCENT),
        (pool.idle, '▓', DIM),
        (closed, '·', DIM),
    ];
    let all: usize = parts.iter().map(|(n, ..)| n).sum::<usize>().max(1);
    let mut left = width;
    let mut spans = Vec::new();
    for (n, sign, style) in parts {
        let exact = (n.saturating_mul(width) + all / 2) / all;
        let here = exact.max(usize::from(n > 0)).min(left);
        left -= here;
        let text: String = std::iter::repeat_n(sign, here).collect();
        spans.push(Span::styled(text, style));
    }
    spans.push(Span::raw(" ".repeat(left)));
    spans
}

/// Hosts, by datacenter.
pub(super) fn hosts(status: &Status, width: u16) -> Section {
    let wide = usize::from(width);
    let title = (wide / 4).clamp(14, 32);
    let mut rows: Vec<Line<'static>> = Vec::new();
    for host in &status.hosts {
        let style = match &*host.health {
            "up" => GOOD,
            "down" => HOT,
            "lags" => WARN,
            _ => DIM,
        };
        let lag = match host.lag_seconds {
            Some(lag) => format!("lag {}, {}", time(lag), bytes(host.lag_bytes.unwrap_or(0))),
            None => String::new(),
        };
        let mut spans = vec![
            Span::styled("● ", style),
            Span::styled(fit(&host.host, title), BOLD),
            Span::raw(" "),
            Span::raw(fit(&host.datacenter, 8)),
            Span::raw(" "),
            Span::raw(fit(&host.role, 8)),
            Span::styled(fit(&host.health, 14), style),
            Span::raw(right(&format!("{}/{}", host.active, host.servers), 8)),
            Span::styled(format!("  {lag}"), DIM),
        ];
        if let Some(why) = &host.why {
            spans.push(Span::styled(format!("  {}", name(why)), HOT));
        }
        rows.push(Line::from(spans));
    }
    Section {
        title: "Hosts".to_owned(),
        note: note(status.hosts.len(), status.left_out.hosts),
        rows: if rows.is_empty() {
            none("no host is configured")
        } else {
            rows
        },
    }
}

/// The last minutes, a line each.
pub(super) fn history(status: &Status, width: u16) -> Section {
    let points = &status.history.points;
    let label = 18;
    let value = 10;
    let room = usize::from(width).saturating_sub(label + value + 1).max(1);
    let shown = &points[points.len().saturating_sub(room)..];
    let line = |title: &str, now: String, values: Vec<Option<f64>>, style: Style| {
        Line::from(vec![
            Span::styled(fit(title, label), DIM),
            Span::styled(format!("{now:>value$} "), BOLD),
            Span::styled(spark(&values), style),
        ])
    };
    let last = points.last();
    let of = |field: fn(&crate::status::Point) -> Option<f64>| -> (String, Vec<Option<f64>>) {
        let now = last.and_then(field);
        (time_or_dash(now), shown.iter().map(field).collect())
    };
    let (p50, p50s) = of(|p| p.transaction_p50_seconds);
    let (p99, p99s) = of(|p| p.transaction_p99_seconds);
    let (wait, waits) = of(|p| p.wait_p99_seconds);
    let rates = shown.iter().map(|p| Some(p.transactions_per_second));
    let now = last.map_or("-".to_owned(), |p| rate(p.transactions_per_second));
    let minutes = points.first().map_or(0.0, |p| p.ago_seconds);
    Section {
        title: "Latency".to_owned(),
        note: match points.is_empty() {
            true => String::new(),
            false => format!("the last {}", time(minutes + status.history.every_seconds)),
        },
        rows: vec![
            line("transaction p50", p50, p50s, ACCENT),
            line("transaction p99", p99, p99s, WARN),
            line("wait p99", wait, waits, HOT),
            line("transactions", now, rates.collect(), GOOD),
        ],
    }
}

/// Values as heights: between the least and the most of them, by their logarithm.
fn spark(values: &[Option<f64>]) -> String {
    let known = || values.iter().flatten().map(|v| v.max(1e-6).ln());
    let (low, high) = (known().reduce(f64::min), known().reduce(f64::max));
    let (Some(low), Some(high)) = (low, high) else {
        return String::new();
    };
    let step = |value: &Option<f64>| match value {
        None => ' ',
        Some(value) => {
            let share = (value.max(1e-6).ln() - low) / (high - low).max(0.1);
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "0 to 7"
            )]
            let at = (share.clamp(0.0, 1.0) * 7.0).round() as usize;
            STEPS[at.min(7)]
        }
    };
    values.iter().map(step).collect()
}

/// Errors by code.
pub(super) fn errors(status: &Status, _width: u16) -> Section {
    let rows: Vec<Line<'static>> = status
        .errors
        .iter()
        .map(|error| {
            Line::from(vec![
                Span::styled(fit(&error.sqlstate, 6), BOLD),
                Span::raw(right(&error.count.to_string(), 9)),
                Span::styled(format!("  {:>10} ago  ", time(error.last_seconds)), DIM),
                Span::raw(name(&error.class)),
            ])
        })
        .collect();
    Section {
        title: "Errors".to_owned(),
        note: note(status.errors.len(), status.left_out.errors),
        rows: if rows.is_empty() { none("none") } else { rows },
    }
}
