//! Which reply may follow which, within the answer to one request.

use super::Request;
use crate::backend::tag;

/// How far the oldest request is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Not at all.
    Start,
    /// In the middle of a statement: rows or COPY data may follow, ReadyForQuery may not.
    Within,
    /// The server reads COPY data: it says that the COPY is complete, or an error, and nothing else.
    Copying,
    /// A statement is complete, and ReadyForQuery or the next statement of the Query follows.
    Ended,
    /// By an error: ReadyForQuery follows.
    Failed,
}

/// What a reply does to the request that it answers.
pub(super) enum Effect {
    /// More will follow.
    Enters(Phase),
    /// It is the last.
    Answers,
}

/// What a reply of type `tag` does to `request`, which is answered as far as `phase` says; `None` if
/// it does not answer it (PostgreSQL documentation, "Message Flow").
#[inline]
pub(super) fn effect_of(tag: u8, request: Request, phase: Phase) -> Option<Effect> {
    use Effect::{Answers, Enters};
    use Request as R;
    Some(match (request, tag, phase) {
        (_, _, Phase::Failed) => return None,
        (R::Query, tag::COMMAND_COMPLETE, Phase::Copying) => Enters(Phase::Ended),
        (R::Execute, tag::COMMAND_COMPLETE, Phase::Copying) => Answers,
        (_, _, Phase::Copying) => return None,
        (R::Query | R::Execute, tag::COPY_IN_RESPONSE, _) => Enters(Phase::Copying),
        (R::Parse, tag::PARSE_COMPLETE, _)
        | (R::Bind, tag::BIND_COMPLETE, _)
        | (R::Close, tag::CLOSE_COMPLETE, _)
        | (R::DescribePortal, tag::ROW_DESCRIPTION | tag::NO_DATA, _)
        | (
            R::Execute,
            tag::COMMAND_COMPLETE | tag::EMPTY_QUERY_RESPONSE | tag::PORTAL_SUSPENDED,
            _,
        ) => Answers,
        (R::DescribeStatement, tag::PARAMETER_DESCRIPTION, _)
        | (R::Query, tag::ROW_DESCRIPTION, _)
        | (R::Query, tag::DATA_ROW | tag::COPY_DATA | tag::COPY_DONE, Phase::Within)
        | (R::Execute, tag::DATA_ROW | tag::COPY_DATA | tag::COPY_DONE, _)
        | (R::Query | R::Execute, tag::COPY_OUT_RESPONSE | tag::COPY_BOTH_RESPONSE, _) => {
            Enters(Phase::Within)
        }
        (R::Query, tag::COMMAND_COMPLETE | tag::EMPTY_QUERY_RESPONSE, _)
        | (R::FunctionCall, tag::FUNCTION_CALL_RESPONSE, Phase::Start) => Enters(Phase::Ended),
        _ => return None,
    })
}
