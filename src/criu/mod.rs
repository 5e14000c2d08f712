//! CRIU's image files, as far as we read or rewrite them: which sockets hold the pod's address, which open files have lost
//! their name.
//!
//! Pure: bytes in, bytes out. Guarantees: no input makes it panic or take more memory than a few times its own size; what
//! is not understood is kept byte for byte; what is broken is an error.

mod addresses;
mod image;
mod remaps;
mod sockets;
mod wire;

pub use addresses::{Moves, alternatives, of_namespace};
pub use image::ImageError;
pub use remaps::{Remap, remaps};
pub use sockets::{FILES_IMAGE, rewrite_addresses};

/// Image of the files that CRIU found under another name than they were opened by.
pub const REMAPS_IMAGE: &str = "remap-fpath.img";

#[cfg(test)]
mod tests;
