//! `pooler top`: the status page in a terminal.
//!
//! ```text
//!             a key, a new size: drawn anew            p
//!   looking <-----------------------------> looking ------> paused (keys and sizes only) --p--> looking
//!      | q
//!      v
//!    (gone; the terminal is as it was before)
//! ```
//! `fetch` asks, `frame` and `rows` draw what came as a function of it; here are only the keys and the clock.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use ratatui::buffer::Buffer;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::crossterm::terminal;
use ratatui::layout::Rect;

mod fetch;
mod frame;
mod rows;
#[cfg(test)]
mod tests;
mod words;

pub use fetch::{FetchError, Target};
pub use frame::{Look, Sort, draw, height};

use crate::status::Status;

/// How often it looks again.
const EVERY: Duration = Duration::from_secs(2);

/// How long it waits for a key before it sees whether it is time to look again.
const TICK: Duration = Duration::from_millis(100);

/// Columns where nobody says how many there are.
const WIDTH: u16 = 120;

/// Why it ended.
#[derive(Debug, thiserror::Error)]
pub enum TopError {
    /// There is nothing to show: exit code 1, or 2 if the URL is wrong.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// There is nowhere to show it: exit code 2.
    #[error("standard output is no terminal: use pooler top --once")]
    NoTerminal,
    /// The terminal, or the system, refused something: exit code 1.
    #[error("{0}")]
    System(#[from] io::Error),
}

impl TopError {
    /// What the process ends with.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::NoTerminal | Self::Fetch(FetchError::Url { .. }) => 2,
            Self::Fetch(_) | Self::System(_) => 1,
        }
    }
}

/// Shows the pooler at `url` until `q` is pressed; or once, as plain text.
///
/// # Errors
/// [`TopError`]; in a terminal only for the first look, later ones are said in the frame.
pub fn run(url: &str, once: bool) -> Result<(), TopError> {
    let target = Target::parse(url)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    if !once && !io::stdout().is_terminal() {
        return Err(TopError::NoTerminal);
    }
    let status = runtime.block_on(target.fetch())?;
    if once {
        let text = text(&status, width());
        return Ok(io::stdout().write_all(text.as_bytes())?);
    }
    let mut terminal = ratatui::try_init()?;
    let ended = look(&mut terminal, &runtime, &target, status);
    ratatui::try_restore()?;
    Ok(ended?)
}

/// The columns of the terminal, or what COLUMNS says, or [`WIDTH`].
fn width() -> u16 {
    let columns = std::env::var("COLUMNS").ok().and_then(|c| c.parse().ok());
    let size = || io::stdout().is_terminal().then(terminal::size)?.ok();
    columns
        .or_else(|| size().map(|(columns, _)| columns))
        .unwrap_or(WIDTH)
}

/// A whole frame as text, without what is only there for keys.
#[must_use]
pub fn text(status: &Status, width: u16) -> String {
    let look = Look::default();
    let area = Rect::new(0, 0, width.max(1), height(status, &look, width.max(1)));
    let mut buffer = Buffer::empty(area);
    draw(status, &look, area, &mut buffer);
    // The last line has the keys.
    let lines = lines(&buffer);
    let mut text = lines[..lines.len().saturating_sub(1)].join("\n");
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

/// The characters of a frame, line by line.
fn lines(buffer: &Buffer) -> Vec<String> {
    let rows = buffer.content.chunks(usize::from(buffer.area.width.max(1)));
    rows.map(|row| {
        let line: String = row.iter().map(ratatui::buffer::Cell::symbol).collect();
        line.trim_end().to_owned()
    })
    .collect()
}

/// What a key asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    Quit,
    Pause,
    Sort,
    LookNow,
}

fn wish(key: KeyEvent) -> Option<Wish> {
    let with_control = key.modifiers.contains(KeyModifiers::CONTROL);
    match key.code {
        _ if key.kind == KeyEventKind::Release => None,
        KeyCode::Char('c') if with_control => Some(Wish::Quit),
        KeyCode::Char('q') | KeyCode::Esc => Some(Wish::Quit),
        KeyCode::Char('p' | ' ') => Some(Wish::Pause),
        KeyCode::Char('s') => Some(Wish::Sort),
        KeyCode::Char('r') => Some(Wish::LookNow),
        _ => None,
    }
}

fn look(
    terminal: &mut ratatui::DefaultTerminal,
    runtime: &tokio::runtime::Runtime,
    target: &Target,
    mut status: Status,
) -> io::Result<()> {
    let mut look = Look::default();
    let mut looked = Instant::now();
    let mut asking = None;
    loop {
        terminal.draw(|frame| {
            let area = frame.area();
            draw(&status, &look, area, frame.buffer_mut());
        })?;
        let due = !look.paused && looked.elapsed() >= EVERY;
        if due && asking.is_none() {
            let target = target.clone();
            asking = Some(runtime.spawn(async move { target.fetch().await }));
        }
        // The answer comes while this thread waits for it; keys wait that long in the terminal.
        if let Some(asked) = &mut asking {
            let waited = runtime.block_on(async { tokio::time::timeout(TICK, asked).await });
            if let Ok(answer) = waited {
                asking = None;
                looked = Instant::now();
                match answer.map_err(io::Error::other)? {
                    Ok(new) => {
                        status = new;
                        look.trouble = None;
                    }
                    Err(e) => look.trouble = Some(e.to_string()),
                }
            }
        }
        let patience = if asking.is_some() {
            Duration::ZERO
        } else {
            TICK
        };
        if !event::poll(patience)? {
            continue;
        }
        // Another size is another frame: the loop draws it.
        let Event::Key(key) = event::read()? else {
            continue;
        };
        match wish(key) {
            Some(Wish::Quit) => return Ok(()),
            Some(Wish::Pause) => look.paused = !look.paused,
            Some(Wish::Sort) => look.sort = look.sort.next(),
            Some(Wish::LookNow) => looked = looked.checked_sub(EVERY).unwrap_or(looked),
            None => {}
        }
    }
}
