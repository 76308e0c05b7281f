//! One file: its content as it is seen, in an object of the backing directory, and what of it is
//! durable.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::FallocateFlags;

use crate::durable::{Choice, Content, Reversal};

/// A regular file.
#[derive(Debug)]
pub(crate) struct FileState {
    content: Content,
    path: PathBuf,
    /// Open only while it is used, so that the number of files is not bounded by that of
    /// descriptors.
    object: Option<Arc<File>>,
}

impl FileState {
    /// A file whose object holds `len` durable bytes.
    pub(crate) fn durable(path: PathBuf, len: u64) -> Self {
        Self {
            content: Content::durable(len),
            path,
            object: None,
        }
    }

    pub(crate) fn content(&self) -> &Content {
        &self.content
    }
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
    pub(crate) fn object(&mut self) -> io::Result<Arc<File>> {
        if let Some(object) = &self.object {
            return Ok(Arc::clone(object));
        }
        let object = File::options().read(true).write(true).open(&self.path)?;
        let object = Arc::new(object);
        self.object = Some(Arc::clone(&object));
        Ok(object)
    }
    /// The same file, its object somewhere else. All of it must be durable.
    pub(crate) fn moved(&self, path: PathBuf) -> Self {
        Self::durable(path, self.content.len())
    }
    /// To be called when nobody has the file open.
    pub(crate) fn close(&mut self) {
        self.object = None;
    }

    pub(crate) fn read(&mut self, offset: u64, size: usize) -> io::Result<Vec<u8>> {
        let object = self.object()?;
        let left = self.content.len().saturating_sub(offset);
        let mut bytes = vec![0; size.min(usize::try_from(left).unwrap_or(usize::MAX))];
        let filled = fill(&object, &mut bytes, offset)?;
        bytes.truncate(filled);
        Ok(bytes)
    }

    pub(crate) fn write(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let object = self.object()?;
        let range = offset..offset.saturating_add(bytes.len() as u64);
        self.content
            .before_change(range.clone(), &mut reader(&object))?;
        let outcome = object.write_all_at(bytes, offset);
        // Where it failed, nobody knows how far it came: all of it counts as changed.
        self.content.changed(&range);
        let len = match outcome {
            Ok(()) => self.content.len().max(range.end),
            Err(_) => object.metadata()?.len(),
        };
        self.content.set_len(len);
        outcome
    }

    pub(crate) fn set_len(&mut self, len: u64) -> io::Result<()> {
        let object = self.object()?;
        let cut = len..self.content.len().max(len);
        self.content
            .before_change(cut.clone(), &mut reader(&object))?;
        if let Err(error) = object.set_len(len) {
            self.content.settle();
            return Err(error);
        }
        self.content.changed(&cut);
        self.content.set_len(len);
        Ok(())
    }

    pub(crate) fn fallocate(&mut self, offset: u64, len: u64, mode: u32) -> io::Result<()> {
        let object = self.object()?;
        let flags = FallocateFlags::from_bits(mode).ok_or(rustix::io::Errno::OPNOTSUPP)?;
        let zeroing = FallocateFlags::PUNCH_HOLE | FallocateFlags::ZERO_RANGE;
        if !(zeroing | FallocateFlags::KEEP_SIZE).contains(flags) {
            return Err(rustix::io::Errno::OPNOTSUPP.into());
        }
        let end = offset.checked_add(len).ok_or(rustix::io::Errno::FBIG)?;
        let zeroed = if flags.intersects(zeroing) {
            offset..end.min(self.content.len()).max(offset)
        } else {
            offset..offset
        };
        self.content
            .before_change(zeroed.clone(), &mut reader(&object))?;
        if let Err(error) = rustix::fs::fallocate(&*object, flags, offset, len) {
            self.content.settle();
            return Err(error.into());
        }
        self.content.changed(&zeroed);
        if !flags.contains(FallocateFlags::KEEP_SIZE) {
            self.content.set_len(self.content.len().max(end));
        }
        Ok(())
    }

    /// Makes everything durable, or, when it fails, nothing ever.
    pub(crate) fn sync(&mut self, fails: bool) -> io::Result<()> {
        if fails {
            self.content.drop_dirty();
            return Err(rustix::io::Errno::IO.into());
        }
        if self.content.is_dirty() {
            let object = self.object()?;
            self.content.sync(&mut reader(&object))?;
        }
        Ok(())
    }

    pub(crate) fn flip_bit(&mut self, offset: u64, bit: u8) -> io::Result<()> {
        let mut byte = [0];
        let object = self.object()?;
        object.read_exact_at(&mut byte, offset)?;
        byte[0] ^= 1 << (bit % 8);
        object.write_all_at(&byte, offset)?;
        self.content.flip_bit(offset, bit);
        Ok(())
    }

    /// Takes back what was not durable.
    pub(crate) fn lose(&mut self, choice: &mut Choice) -> io::Result<Reversal> {
        let reversal = self.content.after_loss(choice);
        if self.content.is_dirty() {
            let object = self.object()?;
            object.set_len(reversal.len)?;
            for (offset, bytes) in &reversal.writes {
                let left =
                    usize::try_from(reversal.len.saturating_sub(*offset)).unwrap_or(usize::MAX);
                object.write_all_at(&bytes[..bytes.len().min(left)], *offset)?;
            }
            self.content = Content::durable(reversal.len);
        }
        self.close();
        Ok(reversal)
    }
}

/// Reads what there is, and leaves the rest as it is.
fn fill(object: &File, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < bytes.len() {
        match object.read_at(&mut bytes[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

fn reader(object: &File) -> impl FnMut(&mut [u8], u64) -> io::Result<()> {
    move |bytes, offset| fill(object, bytes, offset).map(|_| ())
}
