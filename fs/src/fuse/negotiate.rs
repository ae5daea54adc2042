//! What is agreed with the kernel at INIT.
//!
//! Owns the capabilities and sizes of the connection. Invariant: nothing is requested that the kernel does not offer.

use super::session::Serving;
use fuser::{InitFlags, KernelConfig};

/// Bytes in one READ or WRITE: what the kernel can carry in 256 pages, its default limit.
pub(super) const TRANSFER_MAX: u32 = 1 << 20;

/// Asynchronous requests (readahead, write-back) in flight at one time. mountpoint-s3 measured 65 -> 99 Gb/s from the
/// kernel's default of 12 to 64.
const BACKGROUND_MAX: u16 = 64;

/// Settles the connection.
pub(super) fn negotiate(serving: &Serving, config: &mut KernelConfig) {
    let offered = config.capabilities();
    let wanted = capabilities(serving);
    if let Err(refused) = config.add_capabilities(wanted & offered) {
        log::error!("the kernel offered and then refused {refused:?}");
    }
    if let Some(depth) = serving.passthrough
        && let Err(nearest) = config.set_max_stack_depth(depth)
    {
        log::error!("files are passed through to {nearest} stacked filesystems instead of {depth}");
    }
    if let Err(nearest) = config.set_max_write(TRANSFER_MAX) {
        log::warn!("requests carry {nearest} bytes instead of {TRANSFER_MAX}");
    }
    if let Err(nearest) = config.set_max_background(BACKGROUND_MAX) {
        log::warn!("{nearest} requests run in the background instead of {BACKGROUND_MAX}");
    }
    log::debug!("kernel interface {}, capabilities {:?}", config.kernel_abi(), wanted & offered);
}

/// What the union can keep. Absent on purpose: ATOMIC_O_TRUNC (truncation must come as SETATTR, which copies no data),
/// AUTO_INVAL_DATA (nothing changes behind our back), POSIX_LOCKS and FLOCK_LOCKS (the kernel keeps locks itself), and
/// SECURITY_CTX, CREATE_SUPP_GROUP and SETXATTR_EXT, whose extra data `fuser` 0.18 drops or misreads.
fn capabilities(serving: &Serving) -> InitFlags {
    let mut wanted = InitFlags::FUSE_ASYNC_READ
        | InitFlags::FUSE_BIG_WRITES
        | InitFlags::FUSE_DONT_MASK
        | InitFlags::FUSE_DO_READDIRPLUS
        | InitFlags::FUSE_READDIRPLUS_AUTO
        | InitFlags::FUSE_PARALLEL_DIROPS
        | InitFlags::FUSE_CACHE_SYMLINKS
        | InitFlags::FUSE_HANDLE_KILLPRIV_V2
        | InitFlags::FUSE_EXPLICIT_INVAL_DATA
        | InitFlags::FUSE_ASYNC_DIO
        | InitFlags::FUSE_MAX_PAGES;
    if serving.acl {
        wanted |= InitFlags::FUSE_POSIX_ACL;
    }
    if serving.writeback {
        wanted |= InitFlags::FUSE_WRITEBACK_CACHE;
    }
    if serving.passthrough.is_some() {
        wanted |= InitFlags::FUSE_PASSTHROUGH;
    }
    wanted
}
