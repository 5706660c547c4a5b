//! What is in a file, in pages that copies share until one of them writes.

use std::sync::Arc;

/// Bytes of a page.
pub(super) const PAGE: usize = 4_096;

type Page = [u8; PAGE];

/// A file's bytes. A page that was never written is zero and takes no space.
#[derive(Debug, Clone, Default)]
pub(super) struct Content {
    len: u64,
    /// Up to here there is room, whatever was written.
    reserved: u64,
    pages: Vec<Option<Arc<Page>>>,
}

impl Content {
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Whether writing here takes space that the file does not have yet.
    pub(super) fn grows(&self, offset: u64, len: usize) -> bool {
        if offset.saturating_add(len as u64) <= self.reserved {
            return false;
        }
        pages(offset, len).any(|page| self.pages.get(page).is_none_or(Option::is_none))
    }

    /// Reads what is there; `false` if that is less than was asked for.
    pub(super) fn read(&self, offset: u64, out: &mut [u8]) -> bool {
        if offset
            .checked_add(out.len() as u64)
            .is_none_or(|end| end > self.len)
        {
            return false;
        }
        for (page, within, part) in parts(offset, out.len()) {
            let Some(out) = out.get_mut(part) else {
                return false;
            };
            match self.pages.get(page) {
                Some(Some(page)) => {
                    let end = within + out.len();
                    if let Some(bytes) = page.get(within..end) {
                        out.copy_from_slice(bytes);
                    }
                }
                _ => out.fill(0),
            }
        }
        true
    }

    /// Writes, and makes the file longer if it has to be.
    pub(super) fn write(&mut self, offset: u64, data: &[u8]) {
        self.len = self.len.max(offset.saturating_add(data.len() as u64));
        for (page, within, part) in parts(offset, data.len()) {
            if self.pages.len() <= page {
                self.pages.resize(page + 1, None);
            }
            let (Some(slot), Some(data)) = (self.pages.get_mut(page), data.get(part)) else {
                return;
            };
            let page = Arc::make_mut(slot.get_or_insert_with(|| Arc::new([0; PAGE])));
            if let Some(bytes) = page.get_mut(within..within + data.len()) {
                bytes.copy_from_slice(data);
            }
        }
    }

    /// Cuts the file, or makes it longer with zeros.
    pub(super) fn set_len(&mut self, len: u64) {
        if len < self.len {
            let keep = usize::try_from(len.div_ceil(PAGE as u64)).unwrap_or(usize::MAX);
            self.pages.truncate(keep);
            let within = usize::try_from(len % PAGE as u64).unwrap_or_default();
            if within != 0
                && let Some(Some(page)) = self.pages.get_mut(keep - 1)
                && let Some(rest) = Arc::make_mut(page).get_mut(within..)
            {
                rest.fill(0);
            }
        }
        self.len = len;
        self.reserved = self.reserved.min(len);
    }

    /// Makes the file longer with zeros, and takes the room for them.
    pub(super) fn reserve(&mut self, len: u64) {
        self.len = self.len.max(len);
        self.reserved = self.reserved.max(len);
    }

    /// Makes the pages of a range, and the length, what they are in `other`.
    pub(super) fn take_pages(&mut self, other: &Self, offset: u64, len: usize) {
        for page in pages(offset, len) {
            if self.pages.len() <= page {
                self.pages.resize(page + 1, None);
            }
            if let Some(slot) = self.pages.get_mut(page) {
                slot.clone_from(other.pages.get(page).unwrap_or(&None));
            }
        }
        self.len = other.len;
        self.reserved = other.reserved;
    }
}

/// The numbers of the pages of a range.
fn pages(offset: u64, len: usize) -> std::ops::Range<usize> {
    let first = usize::try_from(offset / PAGE as u64).unwrap_or(usize::MAX);
    let end = usize::try_from(offset.saturating_add(len as u64).div_ceil(PAGE as u64))
        .unwrap_or(usize::MAX);
    first..end
}

/// A range, page by page: the page's number, where in it, and which part of the range.
fn parts(offset: u64, len: usize) -> impl Iterator<Item = (usize, usize, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done >= len {
            return None;
        }
        let at = offset.saturating_add(done as u64);
        let within = usize::try_from(at % PAGE as u64).unwrap_or_default();
        let page = usize::try_from(at / PAGE as u64).unwrap_or(usize::MAX);
        let part = done..len.min(done + PAGE - within);
        done = part.end;
        Some((page, within, part))
    })
}
