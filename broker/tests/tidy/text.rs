//! Just enough of Rust's lexical structure: what is code, where functions end, what is a word.

/// The text with every comment, string and character literal replaced by spaces. Line breaks stay,
/// so positions mean the same in both.
pub fn blank(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut code = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let end = literal_end(&chars, at);
        if end == at {
            code.push(chars[at]);
            at += 1;
        } else {
            code.extend(
                chars[at..end]
                    .iter()
                    .map(|c| if *c == '\n' { '\n' } else { ' ' }),
            );
            at = end;
        }
    }
    code
}

/// Where the comment or literal that begins at `at` ends; `at` when none does.
fn literal_end(chars: &[char], at: usize) -> usize {
    let next = chars.get(at + 1).copied();
    match chars[at] {
        '/' if next == Some('/') => chars[at..]
            .iter()
            .position(|c| *c == '\n')
            .map_or(chars.len(), |line| at + line),
        '/' if next == Some('*') => block_comment_end(chars, at),
        '"' => string_end(chars, at + 1),
        'r' if !follows_word(chars, at) || chars[at - 1] == 'b' => {
            raw_string_end(chars, at).unwrap_or(at)
        }
        '\'' => char_end(chars, at).unwrap_or(at),
        _ => at,
    }
}

fn follows_word(chars: &[char], at: usize) -> bool {
    at > 0 && is_word(chars[at - 1])
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn block_comment_end(chars: &[char], start: usize) -> usize {
    let (mut depth, mut at) = (0_usize, start);
    while at < chars.len() {
        match (chars[at], chars.get(at + 1)) {
            ('/', Some('*')) => {
                depth += 1;
                at += 2;
            }
            ('*', Some('/')) => {
                depth -= 1;
                at += 2;
                if depth == 0 {
                    return at;
                }
            }
            _ => at += 1,
        }
    }
    chars.len()
}

fn string_end(chars: &[char], mut at: usize) -> usize {
    while at < chars.len() {
        match chars[at] {
            '\\' => at += 2,
            '"' => return at + 1,
            _ => at += 1,
        }
    }
    chars.len()
}

fn raw_string_end(chars: &[char], at: usize) -> Option<usize> {
    let hashes = chars[at + 1..].iter().take_while(|c| **c == '#').count();
    let body = at + 1 + hashes;
    if chars.get(body) != Some(&'"') {
        return None;
    }
    (body + 1..chars.len())
        .find(|end| {
            chars[*end] == '"'
                && chars
                    .get(end + 1..end + 1 + hashes)
                    .is_some_and(|run| run.iter().all(|c| *c == '#'))
        })
        .map(|quote| quote + 1 + hashes)
}

/// A character literal, as opposed to a lifetime.
fn char_end(chars: &[char], at: usize) -> Option<usize> {
    match (chars.get(at + 1)?, chars.get(at + 2)?) {
        ('\\', _) => {
            let quote = chars[at + 3..].iter().position(|c| *c == '\'')?;
            Some(at + 3 + quote + 1)
        }
        (_, '\'') => Some(at + 3),
        _ => None,
    }
}

/// Whether `line` contains `word` with no letter, digit or underscore at either end.
pub fn has_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(start, found)| {
        let before = line[..start].chars().next_back();
        let after = line[start + found.len()..].chars().next();
        !before.is_some_and(is_word) && !after.is_some_and(is_word)
    })
}

/// Every function with a body: its name, its first line and how many lines it has.
pub fn functions(code: &str) -> Vec<(String, usize, usize)> {
    let mut found = Vec::new();
    for (start, keyword) in code.match_indices("fn ") {
        let before = code[..start].chars().next_back();
        let name: String = code[start + keyword.len()..]
            .chars()
            .take_while(|c| is_word(*c))
            .collect();
        if before.is_some_and(is_word) || name.is_empty() {
            continue;
        }
        if let Some(length) = body_end(&code[start..]) {
            let first = code[..start].matches('\n').count() + 1;
            let lines = code[start..start + length].matches('\n').count() + 1;
            found.push((name, first, lines));
        }
    }
    found
}

/// Where the body that belongs to a function's head ends; `None` for a declaration without one.
fn body_end(code: &str) -> Option<usize> {
    let (mut nested, mut braces) = (0_i32, 0_i32);
    for (at, c) in code.char_indices() {
        match c {
            '(' | '[' => nested += 1,
            ')' | ']' => nested -= 1,
            ';' if nested == 0 && braces == 0 => return None,
            '{' => braces += 1,
            '}' => {
                braces -= 1;
                if braces == 0 && nested == 0 {
                    return Some(at + 1);
                }
            }
            _ => {}
        }
    }
    None
}
