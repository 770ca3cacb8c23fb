//! A frame of `pooler top`: a function of the status, of how one looks at it, and of the room there is.
//!
//! A frame is a head, sections, and a line of keys. Each section asks for its rows; where there is not enough
//! room each gets some before any gets all, the queue first. Wide terminals have two columns of sections.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};

use super::rows;
use super::words::{rate, time, time_or_dash};
use crate::status::Status;

/// From this width on there are two columns.
const TWO_COLUMNS: u16 = 140;

/// Between the two.
const GAP: u16 = 2;

/// How one looks at it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Look {
    /// What comes first among the pools.
    pub sort: Sort,
    /// It stands still.
    pub paused: bool,
    /// Why the status is not from now.
    pub trouble: Option<String>,
}

/// What comes first among the pools.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Sort {
    /// Who has waited longest.
    #[default]
    Wait,
    /// The most servers in use.
    Active,
    /// The most clients.
    Clients,
    /// The name.
    Name,
}

impl Sort {
    /// All of them, in turn.
    const ALL: [(Self, &'static str); 4] = [
        (Self::Wait, "wait"),
        (Self::Active, "in use"),
        (Self::Clients, "clients"),
        (Self::Name, "name"),
    ];

    /// The one that comes after this.
    #[must_use]
    pub fn next(self) -> Self {
        let at = Self::ALL.iter().position(|(sort, _)| *sort == self);
        Self::ALL[(at.unwrap_or(0) + 1) % Self::ALL.len()].0
    }

    fn word(self) -> &'static str {
        let own = Self::ALL.iter().find(|(sort, _)| *sort == self);
        own.map_or("", |(_, word)| word)
    }
}

/// What is less important.
pub(super) const DIM: Style = Style::new().fg(Color::DarkGray);
/// What hurts.
pub(super) const HOT: Style = Style::new().fg(Color::Red).add_modifier(Modifier::BOLD);
/// What is as it should be.
pub(super) const GOOD: Style = Style::new().fg(Color::Green);
/// What may hurt soon.
pub(super) const WARN: Style = Style::new().fg(Color::Yellow);
/// Names.
pub(super) const BOLD: Style = Style::new().add_modifier(Modifier::BOLD);
/// What it is made of.
pub(super) const ACCENT: Style = Style::new().fg(Color::Blue);

/// A title and what stands below it.
#[derive(Debug)]
pub(super) struct Section {
    pub(super) title: String,
    pub(super) note: String,
    pub(super) rows: Vec<Line<'static>>,
}

/// Draws the frame.
pub fn draw(status: &Status, look: &Look, area: Rect, buf: &mut Buffer) {
    let area = area.intersection(buf.area);
    if area.is_empty() {
        return;
    }
    let head = head(status, look, area.width);
    let mut y = area.y;
    for line in head.iter().take(usize::from(area.height)) {
        put(buf, area.x, y, line, area.width);
        y += 1;
    }
    let bottom = area.bottom();
    // The last line has the keys, if it is free.
    let has_keys = y + 1 < bottom;
    let body = Rect::new(area.x, y, area.width, bottom - y - u16::from(has_keys));
    draw_sections(status, look, body, buf);
    if has_keys {
        let keys = format!(
            "q quit   p {}   s sort: {}   r look now",
            if look.paused { "go on" } else { "pause" },
            look.sort.word()
        );
        put(
            buf,
            area.x,
            bottom - 1,
            &Line::styled(keys, DIM),
            area.width,
        );
    }
}

/// How high a frame of this width is that shows everything.
#[must_use]
pub fn height(status: &Status, look: &Look, width: u16) -> u16 {
    let columns = columns(status, look, width);
    let tallest = columns
        .iter()
        .map(|column| column.iter().map(|s| s.rows.len() + 2).sum::<usize>());
    let body = tallest.max().unwrap_or(0);
    let all = head(status, look, width).len() + body + 1;
    u16::try_from(all).unwrap_or(u16::MAX)
}

fn draw_sections(status: &Status, look: &Look, body: Rect, buf: &mut Buffer) {
    let columns = columns(status, look, body.width);
    let mut x = body.x;
    for column in &columns {
        let width = column_width(body.width, columns.len());
        let heights = share(column, body.height);
        let mut y = body.y;
        for (section, height) in column.iter().zip(heights) {
            let area = Rect::new(x, y, width, height);
            draw_section(section, area, buf);
            y += height;
        }
        x += width + GAP;
    }
}

fn column_width(width: u16, columns: usize) -> u16 {
    match columns {
        2 => (width - GAP) / 2,
        _ => width,
    }
}

/// The queue comes first: it is what one looks for.
fn columns(status: &Status, look: &Look, width: u16) -> Vec<Vec<Section>> {
    let two = width >= TWO_COLUMNS;
    let inner = column_width(width, if two { 2 } else { 1 });
    let queue = [rows::waiting(status, inner), rows::holding(status, inner)];
    let state = [rows::pools(status, look.sort, inner)];
    let rest = [
        rows::hosts(status, inner),
        rows::history(status, inner),
        rows::errors(status, inner),
    ];
    if two {
        let [hosts, history, errors] = rest;
        let left = state.into_iter().chain([history, errors]);
        let right = queue.into_iter().chain([hosts]);
        return vec![left.collect(), right.collect()];
    }
    let all = queue.into_iter().chain(state).chain(rest);
    vec![all.collect()]
}

/// How many lines each section gets of `height`: none if not even a title and a row fit.
fn share(sections: &[Section], height: u16) -> Vec<u16> {
    let mut given = vec![0; sections.len()];
    let mut left = height;
    // A title, a row, and a line between it and the next.
    for lines in &mut given {
        let least = left.min(3);
        if least >= 2 {
            *lines = least;
            left -= least;
        }
    }
    while left > 0 {
        let mut grew = false;
        for (lines, section) in given.iter_mut().zip(sections) {
            let wanted = u16::try_from(section.rows.len() + 2).unwrap_or(u16::MAX);
            if *lines > 0 && *lines < wanted && left > 0 {
                *lines += 1;
                left -= 1;
                grew = true;
            }
        }
        if !grew {
            break;
        }
    }
    given
}

fn draw_section(section: &Section, area: Rect, buf: &mut Buffer) {
    if area.height < 2 {
        return;
    }
    let room = usize::from(area.height - 1);
    // The last line stays empty, unless it is needed.
    let all = section.rows.len();
    let fits = if all < room { all } else { room.max(1) };
    let cut = all > fits;
    let shown = if cut && fits > 1 {
        fits - 1
    } else {
        fits.min(all)
    };
    let mut title = vec![Span::styled(section.title.clone(), BOLD.patch(ACCENT))];
    if !section.note.is_empty() {
        title.push(Span::styled(format!("  {}", section.note), DIM));
    }
    put(buf, area.x, area.y, &Line::from(title), area.width);
    let mut y = area.y + 1;
    for row in &section.rows[..shown] {
        put(buf, area.x, y, row, area.width);
        y += 1;
    }
    if cut && shown < fits {
        let more = format!("... {} more", all - shown);
        put(buf, area.x, y, &Line::styled(more, DIM), area.width);
    }
}

fn put(buf: &mut Buffer, x: u16, y: u16, line: &Line<'_>, width: u16) {
    if y < buf.area.bottom() && x < buf.area.right() {
        buf.set_line(x, y, line, width.min(buf.area.right() - x));
    }
}

fn head(status: &Status, look: &Look, width: u16) -> Vec<Line<'static>> {
    let totals = &status.totals;
    let mut first = vec![Span::styled(
        format!("pooler {}", crate::status::name(&status.version)),
        BOLD,
    )];
    if !status.datacenter.is_empty() {
        first.push(Span::raw(format!(
            " in {}",
            crate::status::name(&status.datacenter)
        )));
    }
    first.push(Span::styled(
        format!("  up {}", time(status.uptime_seconds)),
        DIM,
    ));
    first.push(Span::raw("  "));
    first.push(match &status.unready {
        Some(why) => Span::styled(crate::status::name(why), HOT),
        None if totals.waiting > 0 => Span::styled("clients wait", WARN),
        None => Span::styled("serving", GOOD),
    });
    if look.paused {
        first.push(Span::styled("  paused", WARN));
    }
    let mut lines = vec![Line::from(first)];
    lines.extend(wrapped(numbers(status), width));
    if let Some(trouble) = &look.trouble {
        lines.push(Line::styled(crate::status::name(trouble), HOT));
    }
    if !status.silent_workers.is_empty() {
        let silent: Vec<String> = status.silent_workers.iter().map(usize::to_string).collect();
        let said = format!(
            "no answer from worker {}: its clients are not listed",
            silent.join(", ")
        );
        lines.push(Line::styled(said, WARN));
    }
    lines.push(Line::default());
    lines
}

/// What there is of each, as one part a number.
fn numbers(status: &Status) -> Vec<Vec<Span<'static>>> {
    let totals = &status.totals;
    let servers = totals.servers_active + totals.servers_idle + totals.servers_connecting;
    let part = |label: &str, value: String| {
        vec![
            Span::styled(format!("{label} "), DIM),
            Span::styled(value, BOLD),
        ]
    };
    let waiting = match totals.waiting {
        0 => part("waiting", "0".to_owned()),
        n => vec![
            Span::styled("waiting ", DIM),
            Span::styled(format!("{n}, {}", time(totals.oldest_wait_seconds)), HOT),
        ],
    };
    let mut parts = vec![
        waiting,
        part("clients", totals.clients.to_string()),
        part(
            "servers",
            format!("{} of {servers} in use", totals.servers_active),
        ),
    ];
    if let Some(now) = status.history.points.last() {
        parts.push(part("transactions", rate(now.transactions_per_second)));
        parts.push(part("p50", time_or_dash(now.transaction_p50_seconds)));
        parts.push(part("p99", time_or_dash(now.transaction_p99_seconds)));
    }
    parts
}

/// Parts side by side, as many on a line as fit.
fn wrapped(parts: Vec<Vec<Span<'static>>>, width: u16) -> Vec<Line<'static>> {
    let mut lines: Vec<Line<'static>> = Vec::new();
    for part in parts {
        let line = Line::from(part);
        match lines.last_mut() {
            Some(last) if last.width() + 3 + line.width() <= usize::from(width) => {
                last.spans.push(Span::raw("   "));
                last.spans.extend(line.spans);
            }
            _ => lines.push(line),
        }
    }
    lines
}
