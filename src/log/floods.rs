//! A message that comes again and again from one place is said a few times, and then counted.
//!
//! ```text
//!            the first SAID_MAX in a period          more
//!  (none) ----------------------------------> said ----------> held back
//!     ^                                        |                  | the period ends: one line, with how often
//!     +---------------- the period ends -------+------------------+
//! ```
//! A place is where the code is; a message is its text without its fields, so that a thousand clients who
//! lose their servers for one reason are one flood. Logins and slow statements are exempt, by
//! [`AS_OFTEN_AS_IT_HAPPENS`]: they are asked for one by one.

use std::collections::HashMap;
use std::fmt::{self, Write};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::callsite::Identifier;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

/// The target of events that are no floods however often they happen.
pub const AS_OFTEN_AS_IT_HAPPENS: &str = "pooler::each";

/// How long a flood is counted before it is mentioned.
const PERIOD: Duration = Duration::from_secs(10);

/// How often a message is said in a period.
const SAID_MAX: u64 = 10;

/// Different messages that are remembered; what is beyond them is said.
const MESSAGES_MAX: usize = 512;

/// Bytes of a message that are remembered.
const TEXT_LEN_MAX: usize = 256;

/// Lets through what may be said.
#[derive(Debug, Clone, Copy)]
pub(super) struct Floods;

static TALLIES: Mutex<Option<Tallies>> = Mutex::new(None);

impl<S: Subscriber> Layer<S> for Floods {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        let metadata = event.metadata();
        // Whoever asks for these wants all of them.
        if *metadata.level() > Level::INFO || metadata.target() == AS_OFTEN_AS_IT_HAPPENS {
            return true;
        }
        let mut text = Text::default();
        event.record(&mut text);
        let mut tallies = TALLIES.lock().unwrap_or_else(PoisonError::into_inner);
        let tallies = tallies.get_or_insert_default();
        tallies.may_say(
            metadata.callsite(),
            text.0,
            *metadata.level(),
            Instant::now(),
        )
    }
}

/// Mentions the floods whose period is over.
pub(super) fn say_what_was_held_back(now: Instant) {
    let mut tallies = TALLIES.lock().unwrap_or_else(PoisonError::into_inner);
    let over = tallies
        .as_mut()
        .map_or(Vec::new(), |tallies| tallies.take_over(now));
    drop(tallies);
    for (text, tally) in over {
        let more = tally.times - SAID_MAX;
        let seconds = PERIOD.as_secs();
        macro_rules! say {
            ($level:expr) => {
                tracing::event!(target: AS_OFTEN_AS_IT_HAPPENS, $level, more, seconds, "again: {text}")
            };
        }
        match tally.level {
            Level::ERROR => say!(Level::ERROR),
            Level::WARN => say!(Level::WARN),
            _ => say!(Level::INFO),
        }
    }
}

#[derive(Debug, Default)]
struct Tallies(HashMap<(Identifier, String), Tally>);

#[derive(Debug)]
struct Tally {
    since: Instant,
    times: u64,
    level: Level,
}

impl Tallies {
    fn may_say(&mut self, place: Identifier, text: String, level: Level, now: Instant) -> bool {
        if self.0.len() >= MESSAGES_MAX && !self.0.contains_key(&(place.clone(), text.clone())) {
            return true;
        }
        let tally = self.0.entry((place, text)).or_insert(Tally {
            since: now,
            times: 0,
            level,
        });
        tally.times += 1;
        tally.times <= SAID_MAX
    }

    /// Forgets those whose period is over; which of them were held back.
    fn take_over(&mut self, now: Instant) -> Vec<(String, Tally)> {
        let is_over = |_: &_, tally: &mut Tally| now.duration_since(tally.since) >= PERIOD;
        let over = self.0.extract_if(is_over);
        let held_back = over.filter(|(_, tally)| tally.times > SAID_MAX);
        held_back.map(|((_, text), tally)| (text, tally)).collect()
    }
}

/// The message of an event, without its fields.
#[derive(Default)]
struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            // A longer text is cut; the error says so, and nothing else.
            let _cut = write!(Bounded(&mut self.0), "{value:?}");
        }
    }
}

struct Bounded<'a>(&'a mut String);

impl Write for Bounded<'_> {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        let room = TEXT_LEN_MAX - self.0.len().min(TEXT_LEN_MAX);
        let cut = part.floor_char_boundary(room);
        self.0.push_str(&part[..cut]);
        if cut < part.len() {
            return Err(fmt::Error);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> Identifier {
        struct Nothing;
        impl tracing::Callsite for Nothing {
            fn set_interest(&self, _: tracing::subscriber::Interest) {}
            fn metadata(&self) -> &tracing::Metadata<'_> {
                unreachable!("BUG: nobody asks")
            }
        }
        static PLACE: Nothing = Nothing;
        Identifier(&PLACE)
    }

    #[test]
    fn a_flood_is_counted_and_mentioned_once_a_period() {
        let mut tallies = Tallies::default();
        let begin = Instant::now();
        let mut say = |text: &str, at: Duration| {
            tallies.may_say(place(), text.to_owned(), Level::INFO, begin + at)
        };
        let said = (0..1000).filter(|_| say("lost", Duration::ZERO)).count();
        assert_eq!(said as u64, SAID_MAX);
        assert!(say("another", Duration::ZERO));
        assert!(tallies.take_over(begin + PERIOD / 2).is_empty());
        let over = tallies.take_over(begin + PERIOD);
        assert_eq!(over.len(), 1);
        assert_eq!((over[0].0.as_str(), over[0].1.times), ("lost", 1000));
        assert!(tallies.may_say(place(), "lost".to_owned(), Level::INFO, begin + PERIOD));
    }

    #[test]
    fn messages_without_end_do_not_fill_the_memory() {
        let mut tallies = Tallies::default();
        for n in 0..2 * MESSAGES_MAX {
            assert!(tallies.may_say(place(), n.to_string(), Level::WARN, Instant::now()));
        }
        assert_eq!(tallies.0.len(), MESSAGES_MAX);
    }
}
