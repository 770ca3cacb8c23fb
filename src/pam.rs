//! Passwords that the system's PAM judges: method `pam` of `pg_hba.conf`.
//!
//! Its modules do what they like for as long as they like, and nothing can stop them. So each question is
//! asked on a thread of its own, so many at a time, and waited for within `auth.pam_timeout`: a module that
//! hangs keeps its turn, and in the end PAM alone stops answering. A thread that hangs does not hold up the end
//! of the process.
//!
//! PostgreSQL's documentation: "PAM Authentication".

use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::{Semaphore, oneshot};
use zeroize::Zeroizing;

use crate::timer;

/// Questions at a time.
const ASKED_MAX: usize = 16;

static TURNS: Semaphore = Semaphore::const_new(ASKED_MAX);

/// What is asked.
#[derive(Debug)]
pub struct Question {
    /// The name of PAM's service.
    pub service: String,
    /// Where it is described, if not where the system has it.
    pub directory: Option<PathBuf>,
    /// Who comes in.
    pub user: String,
    /// With what.
    pub password: Zeroizing<String>,
    /// From where.
    pub from: String,
    /// How long it may take, waiting for a turn included.
    pub limit: Duration,
}

/// Why PAM said neither yes nor no. No secret is in it.
#[derive(Debug, thiserror::Error)]
pub enum PamFault {
    /// In its own words.
    #[error("service {service:?}: {why}")]
    Failed {
        /// Which service.
        service: String,
        /// Its words.
        why: String,
    },
    /// It takes too long, or everybody before does.
    #[error("service {service:?}: no answer within auth.pam_timeout ({limit:?})")]
    Timeout {
        /// Which service.
        service: String,
        /// How long was waited.
        limit: Duration,
    },
}

/// Whether the password is right. Dropped midway, PAM finishes for nobody.
///
/// # Errors
/// [`PamFault`], if PAM cannot say.
pub async fn check(question: Question) -> Result<bool, PamFault> {
    let (service, limit) = (question.service.clone(), question.limit);
    let answered = timer::timeout(limit, ask(question)).await;
    match answered {
        Ok(Ok(right)) => Ok(right),
        Ok(Err(why)) => Err(PamFault::Failed { service, why }),
        Err(_elapsed) => Err(PamFault::Timeout { service, limit }),
    }
}

async fn ask(question: Question) -> Result<bool, String> {
    let turn = TURNS.acquire().await.map_err(|e| e.to_string())?;
    let (tell, told) = oneshot::channel();
    let thread = std::thread::Builder::new().name("pam".to_owned());
    let started = thread.spawn(move || {
        // Until PAM is done, whoever still waits for it.
        let _turn = turn;
        let _heard = tell.send(judge(&question));
    });
    let _detached = started.map_err(|e| e.to_string())?;
    told.await.unwrap_or_else(|_| Err("it panicked".to_owned()))
}

#[cfg(feature = "pam")]
fn judge(question: &Question) -> Result<bool, String> {
    let answer = pooler_pam::check(&pooler_pam::Question {
        service: &question.service,
        directory: question.directory.as_deref(),
        user: &question.user,
        password: &question.password,
        from: &question.from,
    });
    match answer {
        Ok(pooler_pam::Answer::Right) => Ok(true),
        Ok(pooler_pam::Answer::Refused(why)) => {
            tracing::info!(user = %question.user, service = %question.service, "PAM refused: {why}");
            Ok(false)
        }
        Err(e) => Err(e.to_string()),
    }
}

#[cfg(not(feature = "pam"))]
fn judge(_question: &Question) -> Result<bool, String> {
    Err("it was not built in".to_owned())
}
