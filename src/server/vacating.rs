//! Databases that somebody drops, renames, moves or copies. PostgreSQL waits some seconds for all
//! others to leave such a database, and idle servers would not: they are closed. Who names a database
//! may have no right to it, so that is done for each once in a while and not more often.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long the idle servers of a database are left alone after they were closed: less than the 5 s
/// that PostgreSQL waits.
const EVERY: Duration = Duration::from_secs(2);

/// Databases that are known at a time; beyond that somebody plays with names.
const DATABASES_MAX: usize = 64;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Vacating(Mutex<Vec<Vacated>>);

#[derive(Debug)]
struct Vacated {
    database: Box<[u8]>,
    wanted: bool,
    done: Option<Instant>,
}

impl Vacating {
    /// Somebody wants this database for itself.
    pub(super) fn note(&self, database: Vec<u8>) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(again) = known.iter_mut().find(|v| *v.database == *database) {
            again.wanted = true;
        } else if known.len() < DATABASES_MAX {
            known.push(Vacated {
                database: database.into(),
                wanted: true,
                done: None,
            });
        }
    }

    /// The databases whose idle servers are to be closed now.
    pub(super) fn take_due(&self, now: Instant) -> Vec<Box<[u8]>> {
        let rests = |done: Option<Instant>| {
            done.is_some_and(|at| now.saturating_duration_since(at) < EVERY)
        };
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|v| v.wanted || rests(v.done));
        let due = known.iter_mut().filter(|v| v.wanted && !rests(v.done));
        due.map(|v| {
            v.wanted = false;
            v.done = Some(now);
            v.database.clone()
        })
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_is_vacated_once_in_a_while() {
        let vacating = Vacating::default();
        let start = Instant::now();
        assert!(vacating.take_due(start).is_empty());
        vacating.note(b"shop".to_vec());
        vacating.note(b"shop".to_vec());
        assert_eq!(vacating.take_due(start).len(), 1);
        vacating.note(b"shop".to_vec());
        vacating.note(b"other".to_vec());
        assert_eq!(vacating.take_due(start), [Box::from(&b"other"[..])]);
        assert_eq!(vacating.take_due(start + EVERY), [Box::from(&b"shop"[..])]);
        assert!(vacating.take_due(start + 2 * EVERY).is_empty());
        for n in 0..2 * DATABASES_MAX {
            vacating.note(n.to_string().into_bytes());
        }
        assert_eq!(vacating.take_due(start + 3 * EVERY).len(), DATABASES_MAX);
    }
}
