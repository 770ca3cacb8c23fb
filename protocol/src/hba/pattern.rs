//! What a database or user may be called: a name, a keyword, a group, a regular expression.

use regex::{Regex, RegexBuilder};

use super::tokens::Token;

/// Bytes that a compiled expression may take.
const REGEX_BYTES_MAX: usize = 1 << 20;

/// An expression, compared by its text.
#[derive(Debug, Clone)]
pub(super) struct Expression(pub(super) Regex);

impl Expression {
    /// `text` without its slash.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let built = RegexBuilder::new(text).size_limit(REGEX_BYTES_MAX).build();
        // Its error spans lines; the last says what is wrong.
        let why = |e: regex::Error| e.to_string().lines().last().unwrap_or_default().to_owned();
        built
            .map(Self)
            .map_err(|e| format!("invalid regular expression {text:?}: {}", why(e)))
    }
}

/// A user, in the third column of a rule or of a map.
#[derive(Debug, Clone)]
pub(super) enum UserPattern {
    All,
    Name(String),
    /// Members of this role, direct or not.
    Group(String),
    Matches(Expression),
}

impl UserPattern {
    pub(super) fn parse(token: &Token) -> Result<Self, String> {
        let text = &*token.text;
        if token.is_keyword("all") {
            return Ok(Self::All);
        }
        if let Some(group) = text.strip_prefix('+').filter(|_| !token.quoted) {
            return Ok(Self::Group(group.to_owned()));
        }
        // Quoted or not: quotes are how a comma gets into an expression.
        match text.strip_prefix('/') {
            Some(expression) => Expression::parse(expression).map(Self::Matches),
            None => Ok(Self::Name(text.to_owned())),
        }
    }

    /// Whether it is `user`, whose roles these are; nothing if they would have to be known.
    pub(super) fn fits(&self, user: &str, roles: Option<&[String]>) -> Option<bool> {
        Some(match self {
            Self::All => true,
            Self::Name(name) => name == user,
            Self::Matches(expression) => expression.0.is_match(user),
            Self::Group(group) => is_member(group, roles)?,
        })
    }
}

/// A database, in the second column of a rule.
#[derive(Debug, Clone)]
pub(super) enum DatabasePattern {
    All,
    SameUser,
    SameRole,
    Replication,
    Name(String),
    Matches(Expression),
}

impl DatabasePattern {
    pub(super) fn parse(token: &Token) -> Result<Self, String> {
        let keywords = [
            ("all", Self::All),
            ("sameuser", Self::SameUser),
            ("samerole", Self::SameRole),
            ("samegroup", Self::SameRole),
            ("replication", Self::Replication),
        ];
        let mut keywords = keywords.into_iter();
        if let Some((_, keyword)) = keywords.find(|(word, _)| token.is_keyword(word)) {
            return Ok(keyword);
        }
        match token.text.strip_prefix('/') {
            Some(expression) => Expression::parse(expression).map(Self::Matches),
            None => Ok(Self::Name(token.text.clone())),
        }
    }
}

/// Nothing if `roles` would have to be known.
pub(super) fn is_member(group: &str, roles: Option<&[String]>) -> Option<bool> {
    Some(roles?.iter().any(|role| role == group))
}
