//! For which machine an image is.
//!
//! Owns the names of Go's ports, which image indexes use.

use super::error::ImageError;
use std::fmt;
use std::str::FromStr;

/// Operating system, architecture and, for some, a variant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Platform {
    /// Such as `linux`.
    pub os: String,
    /// Such as `amd64`.
    pub architecture: String,
    /// Such as `v7` for `arm`.
    pub variant: Option<String>,
}

impl Platform {
    /// This machine's.
    pub fn host() -> Platform {
        let (architecture, variant) = match std::env::consts::ARCH {
            "x86_64" => ("amd64", None),
            "aarch64" => ("arm64", None),
            "x86" => ("386", None),
            "arm" => ("arm", Some("v7")),
            "powerpc64" => ("ppc64le", None),
            other => (other, None),
        };
        let variant = variant.map(str::to_owned);
        Platform { os: "linux".to_owned(), architecture: architecture.to_owned(), variant }
    }

    /// How well an image of that platform serves: larger is better, `None` not at all.
    pub fn fit(&self, os: &str, architecture: &str, variant: Option<&str>) -> Option<u32> {
        if self.os != os || self.architecture != architecture {
            return None;
        }
        match (self.variant.as_deref(), variant) {
            (wanted, found) if wanted == found => Some(2),
            // What is not said is the plainest, which every machine of the architecture runs.
            (None, _) | (_, None) => Some(1),
            _ => None,
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.os, self.architecture)?;
        self.variant.as_ref().map_or(Ok(()), |variant| write!(out, "/{variant}"))
    }
}

impl FromStr for Platform {
    type Err = ImageError;

    fn from_str(text: &str) -> Result<Platform, ImageError> {
        let parts: Vec<&str> = text.split('/').collect();
        let valid = (2..=3).contains(&parts.len()) && parts.iter().all(|part| !part.is_empty());
        if !valid {
            return Err(ImageError::BadPlatform { text: text.to_owned() });
        }
        let variant = parts.get(2).map(|variant| (*variant).to_owned());
        Ok(Platform { os: parts[0].to_owned(), architecture: parts[1].to_owned(), variant })
    }
}
