//! What the login of a server depended on beyond its parameters: its role and database, what they are allowed, and what is
//! set for them. What is reset goes back to that, so a server of a pool by session is asked for it when it is born, and
//! again before somebody has it who came later. What is changed between the login and the first question, a round trip, is
//! missed.

use std::time::Duration;

use pooler_protocol::backend::{read_data_row, tag};

use super::Server;
use crate::error::ServerFault;
use crate::timer;

/// How long a server may take to say it.
const ASK_MAX: Duration = Duration::from_secs(5);

/// Who the server is logged in as, and what its login depended on besides: ASCII whatever
/// `client_encoding` is, and qualified, because `search_path` is the client's. A row that was
/// written anew has another `xmin` or `ctid`.
const QUESTION: &str = "SELECT session_user, pg_catalog.concat_ws(' ', r.oid, r.rolsuper, r.rolcanlogin, d.oid, \
    d.datallowconn, pg_catalog.has_database_privilege(d.oid, 'CONNECT'), \
    (SELECT pg_catalog.string_agg(pg_catalog.concat_ws('/', s.setdatabase, s.setrole, s.xmin, s.ctid), ' ' \
        ORDER BY s.setdatabase, s.setrole) \
     FROM pg_catalog.pg_db_role_setting s \
     WHERE s.setdatabase OPERATOR(pg_catalog.=) ANY (ARRAY['0', d.oid]) \
     AND s.setrole OPERATOR(pg_catalog.=) ANY (ARRAY['0', r.oid]))) \
    FROM pg_catalog.pg_roles r, pg_catalog.pg_database d \
    WHERE r.rolname OPERATOR(pg_catalog.=) session_user \
    AND d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database()";

impl Server {
    /// Notes it, of a server that was just opened as `user`. One that cannot say, because of a `statement_timeout` of the
    /// client's own, say, is never as it was born.
    ///
    /// # Errors
    /// [`ServerFault`]: the connection is of no use then.
    pub async fn note_birth(&mut self, user: &str) -> Result<(), ServerFault> {
        self.born_as = self.ask_birth(user).await?;
        Ok(())
    }

    /// Whether a server that is born now would be the same. Doubt says no.
    pub async fn is_as_born(&mut self, user: &str) -> bool {
        let now = self.ask_birth(user).await.ok().flatten();
        now.is_some() && now == self.born_as
    }

    /// As it is now; nothing if the server is not `user`'s, or cannot say.
    async fn ask_birth(&mut self, user: &str) -> Result<Option<Box<[u8]>>, ServerFault> {
        let mut says = None;
        let asked = self.ask(QUESTION, |tag, body| {
            if tag == tag::DATA_ROW
                && let Some([Some(name), Some(rest)]) = read_data_row(body).as_deref()
                && *name == user.as_bytes()
            {
                says = Some(Box::from(*rest));
            }
        });
        match timer::timeout(ASK_MAX, asked).await {
            Ok(Ok(()) | Err(ServerFault::Settings(_))) if self.reusable().is_some() => Ok(says),
            Ok(Ok(()) | Err(ServerFault::Settings(_))) => Err(ServerFault::Closed),
            Ok(Err(fault)) => Err(fault),
            Err(_elapsed) => Err(ServerFault::Timeout),
        }
    }
}
