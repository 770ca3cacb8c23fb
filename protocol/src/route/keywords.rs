//! The keywords that the scan knows, and which of them may stand before a parenthesis without calling
//! a function. See "SQL Key Words" in PostgreSQL's documentation: the reserved ones, and those that
//! "cannot be function or type name", call nothing of that name.

macro_rules! keywords {
    ($($variant:ident $text:literal,)*) => {
        /// A keyword that decides something.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u8)]
        pub(super) enum Keyword {
            /// Any other word.
            None,
            /// A construct of the grammar: a parenthesis behind it calls nothing of its name.
            Construct,
            /// A word behind which an expression begins: what follows is no second name of a table.
            Reserved,
            $($variant,)*
        }

        /// All that decide something by themselves.
        const OWN: &[(&str, Keyword)] = &[$(($text, Keyword::$variant),)*];

        /// By number.
        const BY_NUMBER: &[Keyword] = &[
            Keyword::None, Keyword::Construct, Keyword::Reserved, $(Keyword::$variant,)*
        ];
    };
}

keywords! {
    All "all",
    Analyze "analyze",
    Analyse "analyse",
    As "as",
    Begin "begin",
    By "by",
    Cube "cube",
    Delete "delete",
    Distinct "distinct",
    Escape "escape",
    Explain "explain",
    Filter "filter",
    For "for",
    From "from",
    Group "group",
    Grouping "grouping",
    Insert "insert",
    Into "into",
    Join "join",
    Key "key",
    Materialized "materialized",
    Merge "merge",
    No "no",
    Not "not",
    On "on",
    Only "only",
    Operator "operator",
    Order "order",
    Ordinality "ordinality",
    Over "over",
    Partition "partition",
    Recursive "recursive",
    Rollup "rollup",
    Second "second",
    Select "select",
    Set "set",
    Sets "sets",
    Share "share",
    Show "show",
    Start "start",
    Table "table",
    Time "time",
    Update "update",
    Values "values",
    Verbose "verbose",
    With "with",
    Zone "zone",
}

/// Words with [`Keyword::Construct`].
const CONSTRUCTS: &str = "and any array between bit cast char character coalesce current_time current_timestamp dec decimal else except \
    exists extract float greatest having ilike in intersect interval json json_array json_arrayagg json_exists \
    json_object json_objectagg json_query json_scalar json_serialize json_table json_value lateral least \
    limit localtime localtimestamp national nchar normalize nullif numeric offset or overlay position precision row setof some substring \
    then timestamp trim union using varchar varying variadic when where xmlattributes xmlconcat xmlelement \
    xmlexists xmlforest xmlnamespaces xmlparse xmlpi xmlroot xmlserialize xmltable";

/// Words with [`Keyword::Reserved`]: the rest of the reserved ones, and some that a value may follow.
const RESERVED: &str = "asc asymmetric at both case check collate collation column constraint create cross \
    current_catalog current_date current_role current_user default deferrable \
    desc do end false fetch first foreign full grant initially inner is isnull leading left like local \
    natural next notnull null outer overlaps passing path placing primary range references \
    returning right rows session_user similar symmetric tablesample to trailing true unique user within window";

impl Keyword {
    /// Of a number that [`Self::number`] gave.
    #[inline]
    pub(super) fn of_number(number: u8) -> Self {
        BY_NUMBER
            .get(usize::from(number))
            .copied()
            .unwrap_or(Self::None)
    }

    #[inline]
    pub(super) const fn number(self) -> u8 {
        self as u8
    }

    /// Every one that is not [`Keyword::None`], with its text.
    pub(super) fn all() -> impl Iterator<Item = (&'static str, Self)> {
        let constructs = CONSTRUCTS.split_ascii_whitespace();
        let reserved = RESERVED.split_ascii_whitespace();
        OWN.iter()
            .copied()
            .chain(constructs.map(|text| (text, Self::Construct)))
            .chain(reserved.map(|text| (text, Self::Reserved)))
    }
}
