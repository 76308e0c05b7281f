//! `-f`: how records are written by `consume` and read by `produce`, as kcat and rpk do it.

use std::io::{self, Write};
use std::str::FromStr;

use bytes::Bytes;

use crate::record::{ConsumedRecord, ProducerRecord};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Topic,
    Partition,
    Offset,
    Key,
    Value,
    Time,
    Headers,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Literal(Vec<u8>),
    Field(Field),
}

/// A format such as `%k %v\n`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Format(Vec<Part>);

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts: Vec<Part> = Vec::new();
        let mut literal = Vec::new();
        let mut rest = text.chars();
        while let Some(c) = rest.next() {
            match c {
                '%' => {
                    let field = match rest.next() {
                        Some('%') => {
                            literal.push(b'%');
                            continue;
                        }
                        Some('t') => Field::Topic,
                        Some('p') => Field::Partition,
                        Some('o') => Field::Offset,
                        Some('k') => Field::Key,
                        Some('v' | 's') => Field::Value,
                        Some('T') => Field::Time,
                        Some('h') => Field::Headers,
                        other => {
                            return Err(format!(
                                "%{} is not a field: %t %p %o %k %v %T %h %%",
                                shown(other)
                            ));
                        }
                    };
                    if !literal.is_empty() {
                        parts.push(Part::Literal(std::mem::take(&mut literal)));
                    }
                    parts.push(Part::Field(field));
                }
                '\\' => literal.push(escaped(&mut rest)?),
                _ => literal.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        if !literal.is_empty() {
            parts.push(Part::Literal(literal));
        }
        Ok(Self(parts))
    }
}

fn shown(c: Option<char>) -> String {
    c.map_or_else(|| "(end)".to_owned(), String::from)
}

fn escaped(rest: &mut std::str::Chars<'_>) -> Result<u8, String> {
    Ok(match rest.next() {
        Some('n') => b'\n',
        Some('r') => b'\r',
        Some('t') => b'\t',
        Some('0') => 0,
        Some('\\') => b'\\',
        Some('x') => {
            let digits: String = rest.by_ref().take(2).collect();
            let byte = u8::from_str_radix(&digits, 16)
                .ok()
                .filter(|_| digits.len() == 2);
            byte.ok_or_else(|| format!("\\x{digits} is not a byte"))?
        }
        other => {
            return Err(format!(
                "\\{} is not known: \\n \\r \\t \\0 \\\\ \\xHH",
                shown(other)
            ));
        }
    })
}

impl Format {
    /// Writes one record.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write(&self, record: &ConsumedRecord, out: &mut impl Write) -> io::Result<()> {
        for part in &self.0 {
            match part {
                Part::Literal(bytes) => out.write_all(bytes)?,
                Part::Field(Field::Topic) => out.write_all(record.topic.as_bytes())?,
                Part::Field(Field::Partition) => write!(out, "{}", record.partition)?,
                Part::Field(Field::Offset) => write!(out, "{}", record.offset)?,
                Part::Field(Field::Key) => out.write_all(record.key.as_deref().unwrap_or(&[]))?,
                Part::Field(Field::Value) => {
                    out.write_all(record.value.as_deref().unwrap_or(&[]))?
                }
                Part::Field(Field::Time) => write!(out, "{}", record.timestamp)?,
                Part::Field(Field::Headers) => {
                    for (at, (key, value)) in record.headers.iter().enumerate() {
                        let comma = if at == 0 { "" } else { "," };
                        write!(out, "{comma}{key}=")?;
                        out.write_all(value.as_deref().unwrap_or(&[]))?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Checks that lines can be read with it: only `%k`, `%v`, `%p` and `%h`, and something
    /// between any two of them.
    ///
    /// # Errors
    /// What is wrong.
    pub fn check_input(&self) -> Result<(), String> {
        let allowed = [Field::Key, Field::Value, Field::Partition, Field::Headers];
        let mut previous = false;
        for part in self.line_parts() {
            match part {
                Part::Field(field) if !allowed.contains(field) => {
                    return Err("input has %k, %v, %p and %h only".to_owned());
                }
                Part::Field(_) if previous => {
                    return Err("two fields need something between them".to_owned());
                }
                Part::Field(_) => previous = true,
                Part::Literal(bytes) if bytes.contains(&b'\n') => {
                    return Err("\\n can only end the format: a line is a record".to_owned());
                }
                Part::Literal(_) => previous = false,
            }
        }
        Ok(())
    }

    /// The parts without the newline that ends the format.
    fn line_parts(&self) -> &[Part] {
        match self.0.as_slice() {
            [front @ .., Part::Literal(end)] if end == b"\n" => front,
            all => all,
        }
    }

    /// Reads a line (without its newline) into `record`. A field reaches to the first occurrence
    /// of what follows it; the last one takes the rest.
    ///
    /// # Errors
    /// What the line lacks.
    pub fn read(&self, line: Bytes, mut record: ProducerRecord) -> Result<ProducerRecord, String> {
        let mut rest = line;
        let mut parts = self.line_parts().iter().peekable();
        while let Some(part) = parts.next() {
            let field = match part {
                Part::Literal(bytes) => {
                    if !rest.starts_with(bytes) {
                        return Err(format!("{:?} is missing", String::from_utf8_lossy(bytes)));
                    }
                    let _ = rest.split_to(bytes.len());
                    continue;
                }
                Part::Field(field) => *field,
            };
            let end = match parts.peek() {
                Some(Part::Literal(bytes)) => find(&rest, bytes)
                    .ok_or_else(|| format!("{:?} is missing", String::from_utf8_lossy(bytes)))?,
                _ => rest.len(),
            };
            set(&mut record, field, rest.split_to(end))?;
        }
        if rest.is_empty() {
            Ok(record)
        } else {
            Err("the line goes on after the format".to_owned())
        }
    }
}

fn set(record: &mut ProducerRecord, field: Field, bytes: Bytes) -> Result<(), String> {
    match field {
        Field::Key => record.key = Some(bytes),
        Field::Value => record.value = Some(bytes),
        Field::Partition => {
            let text = String::from_utf8_lossy(&bytes);
            let number = text
                .parse()
                .map_err(|_| format!("{text:?} is not a partition"))?;
            record.partition = Some(highwater_proto::PartitionId(number));
        }
        Field::Headers => {
            let text =
                std::str::from_utf8(&bytes).map_err(|_| "headers are not UTF-8".to_owned())?;
            for pair in text.split(',').filter(|pair| !pair.is_empty()) {
                let (key, value) = pair
                    .split_once('=')
                    .ok_or_else(|| format!("{pair:?} is not key=value"))?;
                let value = Some(Bytes::copy_from_slice(value.as_bytes()));
                record.headers.push((key.to_owned(), value));
            }
        }
        Field::Topic | Field::Offset | Field::Time => {}
    }
    Ok(())
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack
        .windows(needle.len().max(1))
        .position(|window| window == needle)
}

#[cfg(test)]
#[path = "format_tests.rs"]
mod tests;
