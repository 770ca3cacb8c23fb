//! Answers that are kept for a while, and questions that are asked once however many want to know.
//!
//! Invariant: of one name there is at most one question under way, and each question that
//! [`Answers::find`] hands out is noted or forgotten by its asker, or by the sender's end.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Instant;

use tokio::sync::watch;

use super::{Known, LookupError, lock};

/// Names that are kept: strangers can make up as many as they like.
const KEPT_MAX: usize = 10_000;

/// How an answer comes to those who wait for it.
pub(super) type Told<V> = Option<Result<Known<V>, LookupError>>;

/// What to do about a name.
pub(super) enum Step<V> {
    /// Nothing: this is known.
    Known(Known<V>),
    /// Wait: somebody asks.
    Wait(watch::Receiver<Told<V>>),
    /// Ask, and tell everybody.
    Ask(watch::Sender<Told<V>>, watch::Receiver<Told<V>>),
    /// Give up: too many are being asked for.
    Full,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Answers<V> {
    state: Mutex<State<V>>,
    asked_max: usize,
}

#[derive(Debug)]
struct State<V> {
    known: HashMap<String, Kept<V>>,
    asked: HashMap<String, watch::Receiver<Told<V>>>,
}

#[derive(Debug)]
struct Kept<V> {
    known: Known<V>,
    until: Instant,
}

impl<V: Clone> Answers<V> {
    /// Of which at most `asked_max` are asked for at a time.
    pub(super) fn new(asked_max: usize) -> Self {
        let state = Mutex::new(State {
            known: HashMap::new(),
            asked: HashMap::new(),
        });
        Self { state, asked_max }
    }

    /// What is known of `name`, or how to get to know it.
    pub(super) fn find(&self, name: &str, now: Instant) -> Step<V> {
        let mut state = lock(&self.state);
        if let Some(kept) = state.known.get(name).filter(|kept| now < kept.until) {
            return Step::Known(kept.known.clone());
        }
        // Whose asker was dropped with its runtime is asked for again.
        let asked = state.asked.get(name);
        if let Some(answer) = asked.filter(|answer| answer.has_changed().is_ok()) {
            return Step::Wait(answer.clone());
        }
        if state.asked.len() >= self.asked_max {
            return Step::Full;
        }
        let (tell, answer) = watch::channel(None);
        state.asked.insert(name.to_owned(), answer.clone());
        Step::Ask(tell, answer)
    }

    /// The question for `name` is over; `answer` is good until then, if there is one.
    pub(super) fn note(&self, name: &str, answer: Option<Known<V>>, until: Instant) {
        let mut state = lock(&self.state);
        state.asked.remove(name);
        let Some(known) = answer else {
            state.known.remove(name);
            return;
        };
        if state.known.len() >= KEPT_MAX {
            let now = known.1;
            state
                .known
                .retain(|_, kept| now < kept.until && kept.known.0.is_some());
            if state.known.len() >= KEPT_MAX {
                state.known.clear();
            }
        }
        state.known.insert(name.to_owned(), Kept { known, until });
    }

    /// What was known of `name` since `since` is not believed any more.
    pub(super) fn forget(&self, name: &str, since: Instant) {
        let mut state = lock(&self.state);
        if state
            .known
            .get(name)
            .is_some_and(|kept| kept.known.1 <= since)
        {
            state.known.remove(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_name_is_asked_for_once_and_its_answer_kept_for_its_time() {
        let answers = Answers::new(2);
        let now = Instant::now();
        let Step::Ask(tell, _) = answers.find("a", now) else {
            panic!("nobody has asked")
        };
        assert!(matches!(answers.find("a", now), Step::Wait(_)));
        answers.note("a", Some((Some(1), now)), now + SECOND);
        drop(tell);
        assert!(matches!(answers.find("a", now), Step::Known((Some(1), at)) if at == now));
        assert!(matches!(answers.find("a", now + SECOND), Step::Ask(..)));
        // That asker is gone without a word.
        assert!(matches!(answers.find("a", now + SECOND), Step::Ask(..)));
    }

    #[test]
    fn a_doubted_answer_is_asked_for_again_and_a_newer_one_stays() {
        let answers = Answers::new(2);
        let now = Instant::now();
        answers.note("a", Some((Some(1), now)), now + SECOND * 9);
        answers.note("b", Some((Some(1), now + SECOND)), now + SECOND * 9);
        answers.forget("a", now);
        answers.forget("b", now);
        assert!(matches!(answers.find("a", now), Step::Ask(..)));
        assert!(matches!(answers.find("b", now), Step::Known(_)));
    }

    #[test]
    fn names_that_strangers_make_up_are_bounded() {
        let answers = Answers::new(2);
        let now = Instant::now();
        answers.note("bob", Some((Some(1), now)), now + SECOND * 9);
        for n in 0..KEPT_MAX + 10 {
            answers.note(&n.to_string(), Some((None, now)), now + SECOND * 9);
        }
        assert!(lock(&answers.state).known.len() <= KEPT_MAX);
        assert!(
            matches!(answers.find("bob", now), Step::Known(_)),
            "who exists stays"
        );
        let held: Vec<_> = ["x", "y"].map(|name| answers.find(name, now)).into();
        assert!(matches!(answers.find("z", now), Step::Full));
        drop(held);
    }
}
