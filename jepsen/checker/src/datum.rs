//! The values that EDN and JSON have in common, as far as histories use them.

use std::borrow::Cow;

/// One value of either notation. Keywords and strings are one kind here: a history never needs
/// to tell `:send` from `"send"`, and JSON has only the latter.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Datum<'a> {
    /// `nil` or `null`.
    Nil,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A keyword, symbol, character or string, or a number that is not whole.
    Word(Cow<'a, str>),
    /// A vector, list or set.
    List(Vec<Self>),
    /// A map, in the order written.
    Map(Vec<(Self, Self)>),
}

impl<'a> Datum<'a> {
    /// A word.
    pub(crate) const fn word(text: &'a str) -> Self {
        Self::Word(Cow::Borrowed(text))
    }

    /// A number that does not fit is written as a word, which readers then refuse.
    pub(crate) fn unsigned(number: u64) -> Self {
        i64::try_from(number).map_or_else(|_| Self::Word(number.to_string().into()), Self::Int)
    }

    /// What a map holds under a name.
    pub(crate) fn get(&self, name: &str) -> Option<&Self> {
        match self {
            Self::Map(pairs) => pairs
                .iter()
                .find(|(key, _)| matches!(key, Self::Word(word) if word == name))
                .map(|(_, value)| value),
            _ => None,
        }
    }

    /// The elements of a list.
    pub(crate) fn list(&self) -> Option<&[Self]> {
        match self {
            Self::List(items) => Some(items),
            _ => None,
        }
    }

    /// The text of a word.
    pub(crate) fn text(&self) -> Option<&str> {
        match self {
            Self::Word(word) => Some(word),
            _ => None,
        }
    }

    /// A whole number. Also one written as a word: JSON's map keys are always strings.
    pub(crate) fn int(&self) -> Option<i64> {
        match self {
            Self::Int(number) => Some(*number),
            Self::Word(word) => word.parse().ok(),
            _ => None,
        }
    }
}
