//! A reader and writer of EDN, one value at a time.
//!
//! Everything that Jepsen writes is understood; what a history does not use (tags, sets,
//! characters, ratios) is read and flattened into [`Datum`]. Nesting is bounded, input is never
//! indexed, and no length in it sizes an allocation.
#![deny(clippy::indexing_slicing)]

use std::borrow::Cow;
use std::fmt::Write as _;

use crate::datum::Datum;

/// Deeper nesting is refused: a history needs six levels.
const DEPTH_LIMIT: usize = 64;

/// Reads the one value in `text`; white space, commas and comments may surround it. Words are
/// borrowed from the text wherever they stand in it as they are.
pub(crate) fn read(text: &str) -> Result<Datum<'_>, String> {
    let mut reader = Reader { text, at: 0 };
    let value = reader.value(0)?;
    reader.skip_blank(0)?;
    match reader.peek() {
        None => Ok(value),
        Some(_) => Err(format!("something follows the value at byte {}", reader.at)),
    }
}

/// Goes by bytes: everything that has a meaning in EDN is ASCII, and bytes of other characters are
/// never mistaken for it.
struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn next_if(&mut self, condition: impl FnOnce(u8) -> bool) -> bool {
        let is = self.peek().is_some_and(condition);
        self.at += usize::from(is);
        is
    }

    /// From a byte to where the reader is now. Both lie between characters, as only ASCII ends
    /// anything.
    fn since(&self, from: usize) -> &'a str {
        self.text.get(from..self.at).unwrap_or_default()
    }

    fn skip_blank(&mut self, depth: usize) -> Result<(), String> {
        loop {
            match self.peek() {
                Some(c) if is_blank(c) => self.at += 1,
                Some(b';') => while self.next_if(|c| c != b'\n') {},
                Some(b'#') if self.text.as_bytes().get(self.at + 1) == Some(&b'_') => {
                    self.at += 2;
                    self.value(depth + 1)?;
                }
                _ => return Ok(()),
            }
        }
    }

    fn value(&mut self, depth: usize) -> Result<Datum<'a>, String> {
        if depth > DEPTH_LIMIT {
            return Err(format!("nested deeper than {DEPTH_LIMIT} levels"));
        }
        self.skip_blank(depth)?;
        let from = self.at;
        let Some(c) = self.peek() else {
            return Err("a value is missing at the end".to_owned());
        };
        if !matches!(c, b']' | b')' | b'}') && is_special(c) {
            self.at += 1;
        }
        match c {
            b'[' => self.items(b']', depth).map(Datum::List),
            b'(' => self.items(b')', depth).map(Datum::List),
            b'{' => self.map(depth),
            b'"' => self.string().map(Datum::Word),
            b'#' => self.dispatch(depth),
            b'\\' => {
                self.character();
                Ok(Datum::word(self.since(from)))
            }
            b']' | b')' | b'}' => Err(format!("unexpected `{}` at byte {from}", char::from(c))),
            _ => Ok(atom(self.token())),
        }
    }

    fn items(&mut self, close: u8, depth: usize) -> Result<Vec<Datum<'a>>, String> {
        let mut items = Vec::new();
        loop {
            self.skip_blank(depth)?;
            if self.next_if(|c| c == close) {
                return Ok(items);
            }
            items.push(self.value(depth + 1)?);
        }
    }

    fn map(&mut self, depth: usize) -> Result<Datum<'a>, String> {
        let mut pairs = Vec::new();
        loop {
            self.skip_blank(depth)?;
            if self.next_if(|c| c == b'}') {
                return Ok(Datum::Map(pairs));
            }
            let key = self.value(depth + 1)?;
            self.skip_blank(depth)?;
            if self.peek() == Some(b'}') {
                return Err("a map has a key without a value".to_owned());
            }
            pairs.push((key, self.value(depth + 1)?));
        }
    }

    /// After `#`: a set, or a tag whose value stands for the whole.
    fn dispatch(&mut self, depth: usize) -> Result<Datum<'a>, String> {
        if self.next_if(|c| c == b'{') {
            return self.items(b'}', depth).map(Datum::List);
        }
        self.token();
        self.value(depth + 1)
    }

    /// After `\`: one character whatever it is, and the letters of a name.
    fn character(&mut self) {
        let rest = self.text.get(self.at..).unwrap_or_default();
        self.at += rest.chars().next().map_or(0, char::len_utf8);
        self.token();
    }

    /// After the first quotation mark.
    fn string(&mut self) -> Result<Cow<'a, str>, String> {
        let from = self.at;
        while self.next_if(|c| c != b'"' && c != b'\\') {}
        if self.peek() == Some(b'"') {
            let text = self.since(from);
            self.at += 1;
            return Ok(Cow::Borrowed(text));
        }
        let mut text = self.since(from).to_owned();
        let mut rest = self.text.get(self.at..).unwrap_or_default().chars();
        while let Some(c) = rest.next() {
            self.at += c.len_utf8();
            if c == '"' {
                return Ok(Cow::Owned(text));
            }
            if c != '\\' {
                text.push(c);
                continue;
            }
            let Some(escaped) = rest.next() else { break };
            self.at += escaped.len_utf8();
            text.push(match escaped {
                'n' => '\n',
                't' => '\t',
                'r' => '\r',
                other => other,
            });
        }
        Err("a string does not end".to_owned())
    }

    fn token(&mut self) -> &'a str {
        let from = self.at;
        while self.next_if(|c| {
            !is_blank(c) && !matches!(c, b'[' | b']' | b'(' | b')' | b'{' | b'}' | b'"' | b';')
        }) {}
        self.since(from)
    }
}

const fn is_blank(c: u8) -> bool {
    c.is_ascii_whitespace() || c == b','
}

/// What a value other than an atom begins with, or ends with.
const fn is_special(c: u8) -> bool {
    matches!(
        c,
        b'[' | b']' | b'(' | b')' | b'{' | b'}' | b'"' | b'#' | b'\\'
    )
}

fn atom(token: &str) -> Datum<'_> {
    match token {
        "nil" => Datum::Nil,
        "true" => Datum::Bool(true),
        "false" => Datum::Bool(false),
        _ => {
            if let Some(keyword) = token.strip_prefix(':') {
                return Datum::word(keyword);
            }
            let digits = token.strip_suffix('N').unwrap_or(token);
            digits
                .parse()
                .map_or_else(|_| Datum::word(token), Datum::Int)
        }
    }
}

/// Writes one value; words become keywords.
pub(crate) fn write(datum: &Datum<'_>, out: &mut String) {
    match datum {
        Datum::Nil => out.push_str("nil"),
        Datum::Bool(flag) => {
            let _ = write!(out, "{flag}");
        }
        Datum::Int(number) => {
            let _ = write!(out, "{number}");
        }
        Datum::Word(word) => {
            out.push(':');
            out.push_str(word);
        }
        Datum::List(items) => {
            out.push('[');
            for (place, item) in items.iter().enumerate() {
                if place > 0 {
                    out.push(' ');
                }
                write(item, out);
            }
            out.push(']');
        }
        Datum::Map(pairs) => {
            out.push('{');
            for (place, (key, value)) in pairs.iter().enumerate() {
                if place > 0 {
                    out.push_str(", ");
                }
                write(key, out);
                out.push(' ');
                write(value, out);
            }
            out.push('}');
        }
    }
}
