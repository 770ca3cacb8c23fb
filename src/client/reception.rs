//! What the console asks of a worker: who is there, to end sessions, and to have them stand still.

use std::rc::Rc;

use super::seat::Order;
use super::session::server_line;
use super::{Hub, Phase};
use crate::admin::{Census, Errand, Scope, Whom};

impl Hub {
    /// Does what the console asked for.
    pub(super) fn run_for_console(&self, errand: Errand) {
        match errand {
            // Whoever asked has given up, after this worker had more urgent things to do.
            Errand::Look(_, reply) if reply.is_closed() => {}
            Errand::Look(scope, reply) => {
                let census = Rc::new(Census::new(reply));
                for local in self.pools.all() {
                    local.each_idle(|server, since, outdated| {
                        let mut line = server_line(&local.shared().key, server);
                        line.since = since;
                        line.close_needed = outdated;
                        census.add_server(line);
                    });
                }
                self.seats.order_some(
                    |seat| {
                        let (phase, _) = seat.standing();
                        scope == Scope::Everybody || phase != Phase::Idle
                    },
                    || Order::Describe(Rc::clone(&census)),
                );
            }
            Errand::End(whom, refusal, reply) => {
                let ended = self.seats.order_some(
                    |seat| match &whom {
                        Whom::Client(id) => seat.id() == *id,
                        Whom::Database(name) => seat.pool().key.database == *name,
                        Whom::Everybody => true,
                    },
                    || Order::End(refusal.clone()),
                );
                let _heard = reply.send(ended);
            }
            Errand::StandStill(reply) => self.stand_still(reply),
            Errand::GoOn => self.go_on(),
        }
    }
}
