//! The ledger between a model client and a model backend, with every delay that chance thinks of.
//!
//! The backend follows PostgreSQL's rules and says which message caused each reply. The ledger hears
//! only type bytes; what it concludes must be what the backend knows.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::{HashMap, HashSet, VecDeque};

use pooler_protocol::ledger::{Answer, Deal, Ledger, Request, Sent, Violation};

mod model;

use model::Chance;
use model::backend::{Backend, Id, Kind, Message, Reply};
use model::client::{Spared, Writer};

/// A fault of the server: this many replies from now, one is lost or said twice.
#[derive(Clone, Copy)]
struct Fault {
    after: u64,
    twice: bool,
}

struct Run {
    chance: Chance,
    ledger: Ledger,
    backend: Backend,
    from_client: VecDeque<(Message, Deal)>,
    to_server: VecDeque<Message>,
    from_server: VecDeque<Reply>,
    /// One entry for each `op` given to the ledger: whose it is.
    journal: VecDeque<Id>,
    deals: HashMap<Id, Deal>,
    answered: HashSet<Id>,
    voided: Vec<Id>,
    /// The newest message whose reply went to the client.
    told: Id,
    fault: Option<Fault>,
    /// What the fault hit.
    hit: Option<Reply>,
}

impl Run {
    fn new(seed: u64, spared: Spared, fault: Option<Fault>) -> Self {
        let mut chance = Chance::new(seed.wrapping_mul(0x1234_5678_9abc_def1));
        let steps = 1 + chance.below(30);
        Self {
            ledger: Ledger::new(),
            backend: Backend::new(),
            from_client: Writer::write(seed, spared, steps),
            to_server: VecDeque::new(),
            from_server: VecDeque::new(),
            journal: VecDeque::new(),
            deals: HashMap::new(),
            answered: HashSet::new(),
            voided: Vec::new(),
            told: 0,
            chance,
            fault,
            hit: None,
        }
    }

    fn is_over(&self) -> bool {
        self.from_client.is_empty() && self.to_server.is_empty() && self.from_server.is_empty()
    }

    fn finish(&mut self) -> Result<(), Violation> {
        // How far one side gets ahead of another differs between runs.
        let (ahead, behind) = (1 + self.chance.below(5), 1 + self.chance.below(5));
        while !self.is_over() {
            match self.chance.below(ahead + behind + 3) {
                n if n < ahead => self.client_sends(),
                n if n < ahead + 3 => self.server_reads(),
                _ => self.pooler_reads()?,
            }
            self.ledger.check_invariants();
            self.check_reusable();
        }
        Ok(())
    }

    fn client_sends(&mut self) {
        let Some((message, deal)) = self.from_client.pop_front() else {
            return;
        };
        self.enter(message, deal);
    }

    fn enter(&mut self, mut message: Message, deal: Deal) {
        let id = message.id;
        self.deals.insert(id, deal);
        let ops = u8::try_from(self.chance.below(3)).unwrap();
        let (request, ops) = match message.kind {
            // The rule for callers: see `may_stray`.
            Kind::Answered if self.ledger.may_stray() => {
                message.kind = Kind::Parse;
                (Request::Parse, ops)
            }
            Kind::Answered => {
                let answer = Answer::ParseComplete;
                if self.ledger.answer(answer, 1) {
                    self.journal.push_back(id);
                } else {
                    self.voided.push(id);
                }
                self.to_server.push_back(message);
                return self.give_answers();
            }
            Kind::Flush => return self.to_server.push_back(message),
            Kind::CopyData => {
                if self.ledger.outstanding() == 0 {
                    message.kind = Kind::Dropped;
                }
                return self.to_server.push_back(message);
            }
            Kind::Query(_) => (Request::Query, ops),
            Kind::FunctionCall => (Request::FunctionCall, ops),
            Kind::Sync => (Request::Sync, 0),
            Kind::Parse => (Request::Parse, ops),
            Kind::Bind => (Request::Bind, ops),
            Kind::DescribeStatement { .. } => (Request::DescribeStatement, ops),
            Kind::DescribePortal { .. } => (Request::DescribePortal, ops),
            Kind::Execute(_) => (Request::Execute, ops),
            Kind::Close => (Request::Close, ops),
            Kind::CopyDone | Kind::CopyFail => (Request::CopyEnd, 0),
            Kind::Dropped => unreachable!("no client sends it"),
        };
        match self.ledger.request(request, deal, ops) {
            Sent::Discard if request == Request::CopyEnd => message.kind = Kind::Dropped,
            // The model still gets it, and must ignore it.
            Sent::Discard => self.voided.push(id),
            Sent::Entered => self.journal.extend((0..ops).map(|_| id)),
            Sent::Unanswered => {
                assert!(matches!(request, Request::Sync | Request::CopyEnd));
            }
        }
        self.to_server.push_back(message);
    }

    fn server_reads(&mut self) {
        let Some(message) = self.to_server.pop_front() else {
            return;
        };
        self.backend.consume(&message);
        while let Some(reply) = self.backend.replies.pop_front() {
            self.asynchronous();
            self.transmit(reply);
        }
        self.asynchronous();
    }

    /// A message that no request caused.
    fn asynchronous(&mut self) {
        if self.chance.one_in(20) {
            let tag = [b'N', b'S', b'A'][usize::try_from(self.chance.below(3)).unwrap()];
            self.from_server.push_back(Reply {
                tag,
                status: 0,
                cause: 0,
            });
        }
    }

    fn transmit(&mut self, reply: Reply) {
        if let (Some(fault), b'1'..=b'3' | b't' | b'n' | b's' | b'V' | b'Z') =
            (&mut self.fault, reply.tag)
            // If these are lost, what a request behind sends can be taken for them.
            && (fault.twice || !matches!(reply.tag, b's' | b'n'))
        {
            if fault.after == 0 {
                let copies = if fault.twice { 2 } else { 0 };
                self.fault = None;
                self.hit = Some(reply);
                return self.from_server.extend((0..copies).map(|_| reply));
            }
            fault.after -= 1;
        }
        self.from_server.push_back(reply);
    }

    fn pooler_reads(&mut self) -> Result<(), Violation> {
        let Some(reply) = self.from_server.pop_front() else {
            return Ok(());
        };
        self.give_answers();
        if reply.cause == 0 {
            let verdict = self.ledger.response(reply.tag, reply.status)?;
            assert!(reply.tag != b'A' || verdict.deal == Deal::Forward);
            return Ok(());
        }
        if matches!(reply.tag, b'D' | b'd') && self.hit.is_none() {
            let deal = self.ledger.rows_to();
            assert_eq!(
                deal,
                self.deals.get(&reply.cause).copied(),
                "rows of {reply:?}"
            );
            if self.chance.one_in(2) {
                self.tell(reply.cause);
                return Ok(());
            }
        }
        let verdict = self.ledger.response(reply.tag, reply.status)?;
        if self.hit.is_none() {
            self.check_verdict(reply, verdict);
        }
        if reply.tag == b'Z' {
            assert_eq!(self.ledger.status() as u8, status_number(reply.status));
        }
        self.give_answers();
        Ok(())
    }

    fn check_verdict(&mut self, reply: Reply, verdict: pooler_protocol::ledger::Verdict) {
        let deal = self.deals[&reply.cause];
        if reply.tag == b'E' {
            let failed: Vec<_> = self.journal.drain(..verdict.voided as usize).collect();
            let (own, skipped) = failed.split_at(verdict.failed as usize);
            assert!(
                own.iter().all(|id| *id == reply.cause),
                "{reply:?} undid {own:?}"
            );
            assert!(!skipped.contains(&reply.cause), "all of {reply:?} fails");
            self.voided.extend(skipped);
            assert_eq!(verdict.kept, 0);
        } else {
            assert_eq!(verdict.deal, deal, "{reply:?}");
            let kept = self.journal.drain(..verdict.kept as usize);
            assert!(
                kept.into_iter().all(|id| id == reply.cause),
                "{reply:?} kept others"
            );
            assert_eq!(verdict.voided, 0);
        }
        if verdict.deal == Deal::Forward {
            self.tell(reply.cause);
        }
    }

    fn give_answers(&mut self) {
        while let Some((_, kept)) = self.ledger.take_answer() {
            assert_eq!(kept, 1);
            let id = self.journal.pop_front().unwrap();
            if self.hit.is_none() {
                self.tell(id);
                assert!(self.answered.insert(id));
            }
        }
    }

    /// What the client gets, it gets in the order in which it asked.
    fn tell(&mut self, id: Id) {
        assert!(
            self.told <= id,
            "the reply to {id} came behind that to {}",
            self.told
        );
        self.told = id;
    }

    /// If the ledger says that the server can be handed on, nothing more may come of what was sent.
    fn check_reusable(&self) {
        if self.ledger.reusable().is_none() || self.hit.is_some() {
            return;
        }
        assert!(
            self.from_server.iter().all(|r| r.cause == 0),
            "replies are on their way"
        );
        let mut rest = self.backend.clone();
        self.to_server.iter().for_each(|m| rest.consume(m));
        assert!(
            rest.replies.is_empty(),
            "{:?} are still to come",
            rest.replies
        );
        assert!(rest.is_idle(), "{rest:?}");
    }

    /// A Close of the unnamed portal and a Sync, for the pooler's own sake.
    fn ask(&mut self) -> Result<(), Violation> {
        for kind in [Kind::Close, Kind::Sync] {
            let fails = false;
            let id = Id::MAX;
            self.enter(Message { id, kind, fails }, Deal::Skip);
        }
        self.finish()
    }
}

fn status_number(status: u8) -> u8 {
    match status {
        b'I' => 0,
        b'T' => 1,
        _ => 2,
    }
}

#[test]
fn t01_every_reply_of_a_correct_server_is_attributed_to_its_request() {
    let (mut questions, mut undecidable) = (0, 0);
    for seed in 0..20_000 {
        let mut run = Run::new(seed, Spared::Nothing, None);
        let mut finish = || -> Result<(), Violation> {
            run.finish()?;
            if run.ledger.needs_question() {
                questions += 1;
                run.ask()?;
            }
            Ok(())
        };
        match finish() {
            Ok(()) => {}
            Err(Violation::Undecidable) => {
                undecidable += 1;
                continue;
            }
            Err(violation) => panic!("seed {seed}: {violation}"),
        }
        assert!(run.backend.is_idle() && !run.backend.is_in_block());
        assert!(
            run.ledger.reusable().is_some(),
            "seed {seed}: {:?}",
            run.ledger
        );
        assert!(run.journal.is_empty(), "seed {seed}: {:?}", run.journal);
        for id in &run.voided {
            assert!(
                run.backend.skipped.contains(id),
                "seed {seed}: {id} was not skipped"
            );
        }
        for id in &run.answered {
            assert!(
                !run.backend.skipped.contains(id),
                "seed {seed}: {id} was skipped"
            );
        }
    }
    assert!(undecidable < 200, "{undecidable} runs ended in doubt");
    assert!(
        questions > 100,
        "the model left a doubt only {questions} times"
    );
}

/// Without errors on the way, a lost or repeated reply of a kind that ends something shows at once
/// or leaves a server that is not handed on.
#[test]
fn a_server_that_loses_or_repeats_a_reply_is_caught() {
    let mut hits = 0;
    for seed in 0..20_000 {
        let fault = Fault {
            after: seed % 13,
            twice: seed % 2 == 0,
        };
        let mut run = Run::new(seed, Spared::Errors, Some(fault));
        let outcome = run.finish();
        let Some(hit) = run.hit else { continue };
        hits += 1;
        let caught = outcome.is_err() || run.ledger.reusable().is_none();
        assert!(
            caught,
            "seed {seed}: {hit:?} was lost or repeated, and nobody noticed"
        );
    }
    assert!(hits > 5_000, "the fault hit only {hits} times");
}
