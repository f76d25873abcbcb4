//! A page version that a snapshot retains, and its share of the quota.

use std::sync::Arc;

use crate::quota::Usage;
use crate::table::{PageGuard, PageImage};

/// A copy of a page that counts against the quota until it is dropped.
#[derive(Debug)]
pub(crate) struct RetainedPage {
    pub(super) image: PageImage,
    usage: Arc<Usage>,
}

impl RetainedPage {
    /// Copies a locked page; returns `None` where the quota or the system has no room for it.
    pub(crate) fn copy(usage: &Arc<Usage>, guard: &PageGuard<'_>) -> Option<Self> {
        if !usage.retain_page() {
            return None;
        }
        let Some(image) = guard.image() else {
            usage.release_page();
            return None;
        };
        Some(Self { image, usage: Arc::clone(usage) })
    }
}

impl Drop for RetainedPage {
    fn drop(&mut self) {
        self.usage.release_page();
    }
}
