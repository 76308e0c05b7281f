//! The kernel's table of mounts.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// What mounts of this file system are called in the table.
pub(crate) const SOURCE: &str = "highwater-powerfs";

/// Whether this file system is mounted there, its server alive or dead.
///
/// # Errors
/// Those of reading the table.
pub(crate) fn is_mounted(path: &Path) -> io::Result<bool> {
    let path = absolute(path)?;
    let table = fs::read("/proc/self/mountinfo")?;
    Ok(ours(&table).any(|mount| mount == path))
}

/// The path in the form that the table uses. The last part is not looked at, because a dead mount
/// answers nothing.
fn absolute(path: &Path) -> io::Result<PathBuf> {
    let path = std::path::absolute(path)?;
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => match parent.canonicalize() {
            Ok(parent) => Ok(parent.join(name)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(path),
            Err(error) => Err(error),
        },
        _ => Ok(path),
    }
}

/// Where mounts of this file system are.
fn ours(table: &[u8]) -> impl Iterator<Item = PathBuf> {
    table.split(|byte| *byte == b'\n').filter_map(|line| {
        let mut fields = line.split(|byte| *byte == b' ');
        let place = fields.nth(4)?;
        // Optional fields end with a dash.
        let mut rest = fields.skip_while(|field| *field != b"-").skip(1);
        let (kind, source) = (rest.next()?, rest.next()?);
        (kind.starts_with(b"fuse") && source == SOURCE.as_bytes()).then(|| unescape(place))
    })
}

/// Blanks and the like stand there as a backslash and three octal digits.
fn unescape(field: &[u8]) -> PathBuf {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, tail @ ..] = rest {
        rest = tail;
        let octal = match tail {
            [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', ..] if *first == b'\\' => {
                Some((a - b'0') * 64 + (b - b'0') * 8 + (c - b'0'))
            }
            _ => None,
        };
        if octal.is_some() {
            rest = &tail[3..];
        }
        plain.push(octal.unwrap_or(*first));
    }
    PathBuf::from(std::ffi::OsString::from_vec(plain))
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    #[test]
    fn mounts_of_this_file_system_are_found_and_no_others() {
        let table = b"22 1 8:1 / / rw - ext4 /dev/vda rw\n\
            30 22 0:40 / /tmp/a\\040b\\134 rw,nosuid shared:3 - fuse highwater-powerfs rw,user_id=0\n\
            31 22 0:41 / /tmp/c rw - fuse other rw\n\
            32 22 0:42 / /tmp/d rw - tmpfs highwater-powerfs rw\n";
        let found: Vec<_> = ours(table).collect();
        assert_eq!(found, [Path::new("/tmp/a b\\")]);
        assert_eq!(found[0].as_os_str().as_bytes(), b"/tmp/a b\\");
    }
}
