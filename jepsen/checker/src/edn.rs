//! A reader and writer of EDN, one value at a time.
//!
//! Everything that Jepsen writes is understood; what a history does not use (tags, sets,
//! characters, ratios) is read and flattened into [`Datum`]. Nesting is bounded, input is never
//! indexed, and no length in it sizes an allocation.
#![deny(clippy::indexing_slicing)]

use std::fmt::Write as _;
use std::iter::Peekable;
use std::str::CharIndices;

use crate::datum::Datum;

/// Deeper nesting is refused: a history needs six levels.
const DEPTH_LIMIT: usize = 64;

/// Reads the one value in `text`; white space, commas and comments may surround it.
pub(crate) fn read(text: &str) -> Result<Datum, String> {
    let mut reader = Reader {
        text,
        chars: text.char_indices().peekable(),
    };
    let value = reader.value(0)?;
    reader.skip_blank(0)?;
    match reader.chars.peek() {
        None => Ok(value),
        Some((at, _)) => Err(format!("something follows the value at byte {at}")),
    }
}

struct Reader<'a> {
    text: &'a str,
    chars: Peekable<CharIndices<'a>>,
}

impl Reader<'_> {
    fn skip_blank(&mut self, depth: usize) -> Result<(), String> {
        while let Some(&(at, c)) = self.chars.peek() {
            if c.is_whitespace() || c == ',' {
                self.chars.next();
            } else if c == ';' {
                while self.chars.next_if(|&(_, c)| c != '\n').is_some() {}
            } else if c == '#' && self.text.get(at..at + 2) == Some("#_") {
                self.chars.next();
                self.chars.next();
                self.value(depth + 1)?;
            } else {
                break;
            }
        }
        Ok(())
    }

    fn value(&mut self, depth: usize) -> Result<Datum, String> {
        if depth > DEPTH_LIMIT {
            return Err(format!("nested deeper than {DEPTH_LIMIT} levels"));
        }
        self.skip_blank(depth)?;
        let Some((at, c)) = self.chars.next() else {
            return Err("a value is missing at the end".to_owned());
        };
        match c {
            '[' => self.items(']', depth).map(Datum::List),
            '(' => self.items(')', depth).map(Datum::List),
            '{' => self.map(depth),
            '"' => self.string().map(Datum::Word),
            '#' => self.dispatch(depth),
            '\\' => {
                self.chars.next();
                Ok(Datum::Word(self.token(at)))
            }
            ']' | ')' | '}' => Err(format!("unexpected `{c}` at byte {at}")),
            _ => Ok(atom(&self.token(at))),
        }
    }

    fn items(&mut self, close: char, depth: usize) -> Result<Vec<Datum>, String> {
        let mut items = Vec::new();
        loop {
            self.skip_blank(depth)?;
            if self.chars.next_if(|&(_, c)| c == close).is_some() {
                return Ok(items);
            }
            items.push(self.value(depth + 1)?);
        }
    }

    fn map(&mut self, depth: usize) -> Result<Datum, String> {
        let mut items = self.items('}', depth)?.into_iter();
        let mut pairs = Vec::new();
        while let Some(key) = items.next() {
            let value = items.next().ok_or("a map has a key without a value")?;
            pairs.push((key, value));
        }
        Ok(Datum::Map(pairs))
    }

    /// After `#`: a set, or a tag whose value stands for the whole.
    fn dispatch(&mut self, depth: usize) -> Result<Datum, String> {
        if self.chars.next_if(|&(_, c)| c == '{').is_some() {
            return self.items('}', depth).map(Datum::List);
        }
        if let Some(&(at, _)) = self.chars.peek() {
            self.token(at);
        }
        self.value(depth + 1)
    }

    fn string(&mut self) -> Result<String, String> {
        let mut text = String::new();
        while let Some((_, c)) = self.chars.next() {
            match c {
                '"' => return Ok(text),
                '\\' => match self.chars.next().map(|(_, c)| c) {
                    Some('n') => text.push('\n'),
                    Some('t') => text.push('\t'),
                    Some('r') => text.push('\r'),
                    Some(other) => text.push(other),
                    None => break,
                },
                other => text.push(other),
            }
        }
        Err("a string does not end".to_owned())
    }

    /// The rest of a token whose first character, at byte `from`, may be consumed already.
    fn token(&mut self, from: usize) -> String {
        let ends = |c: char| c.is_whitespace() || ",[](){}\";".contains(c);
        while self.chars.next_if(|&(_, c)| !ends(c)).is_some() {}
        let end = self.chars.peek().map_or(self.text.len(), |&(at, _)| at);
        self.text.get(from..end).unwrap_or_default().to_owned()
    }
}

fn atom(token: &str) -> Datum {
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
pub(crate) fn write(datum: &Datum, out: &mut String) {
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
