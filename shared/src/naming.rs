//! From the object's key, its metadata and the archive's own names to repositories and tags.
//!
//! The rules, in their order: the metadata `image` wins; else, for one image in a folder, the key names it as
//! `<repository>/<tag>.<suffix>`; else the archive's own names count. The key's first folder is the uploader's
//! authority: nothing outside it may be named.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::archive::ArchiveImage;
use crate::image::{NameError, Repository, Tag};

/// The metadata entry that names an image: `x-amz-meta-image` on the wire.
pub const IMAGE_METADATA: &str = "image";

/// What archives are called; stripped from a key before it names a tag. Longest first.
const SUFFIXES: [&str; 16] = [
    ".tar.zstd",
    ".tar.bz2",
    ".tar.zst",
    ".tar.gz",
    ".tar.xz",
    ".tbz2",
    ".tzst",
    ".tar",
    ".tgz",
    ".txz",
    ".tbz",
    ".tzs",
    ".oci",
    ".bz2",
    ".zst",
    ".gz",
];

/// Where an image goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// With the stack's prefix in front.
    pub repository: Repository,
    /// At least one.
    pub tags: Vec<Tag>,
    /// What named it.
    pub named_by: NamedBy,
}

/// What named an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NamedBy {
    /// `x-amz-meta-image`.
    Metadata,
    /// The object's key.
    Key,
    /// The archive's own names.
    Archive,
}

/// What the naming is told of an upload.
#[derive(Debug, Clone, Copy)]
pub struct Upload<'a> {
    /// The bucket, for the commands in refusals.
    pub bucket: &'a str,
    /// The key.
    pub key: &'a str,
    /// The value of [`IMAGE_METADATA`].
    pub image: Option<&'a str>,
    /// Put in front of every repository; empty, or ends in `/`.
    pub prefix: &'a str,
}

/// A name as an archive has it, without registry host, `library/` and digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchiveName {
    /// Absent when the archive gives a tag only, as OCI layouts do.
    pub repository: Option<String>,
    /// Absent when the archive gives a repository only.
    pub tag: Option<String>,
}

impl ArchiveName {
    /// Reads what an OCI layout notes of an image: `registry/repository:tag`, `repository:tag` or a tag alone; `None`
    /// for an empty one.
    pub fn parse(name: &str) -> Option<Self> {
        if name.trim().is_empty() || name.contains(['/', ':', '@']) {
            return Self::of_image(name);
        }
        Some(Self { repository: None, tag: Some(name.trim().to_owned()) })
    }

    /// Reads what Docker calls an image: `registry/repository:tag`, or a repository alone; `None` for `<none>:<none>`.
    pub fn of_image(name: &str) -> Option<Self> {
        let name = name.split('@').next().unwrap_or_default().trim();
        if name.is_empty() || name.contains("<none>") {
            return None;
        }
        let path = match name.split_once('/') {
            // Docker's own rule for what is a host (distribution/reference).
            Some((host, path)) if host.contains(['.', ':']) || host == "localhost" => path,
            _ => name,
        };
        let path = path.strip_prefix("library/").unwrap_or(path);
        let (repository, tag) = split_tag(path);
        Some(Self { repository: Some(repository.to_owned()), tag: tag.map(str::to_owned) })
    }
}

/// `repository:tag` in two; a colon before the last slash is a port.
fn split_tag(name: &str) -> (&str, Option<&str>) {
    match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => (repository, Some(tag)),
        _ => (name, None),
    }
}

/// Why an upload's names are refused; all permanent.
#[derive(Debug, thiserror::Error)]
pub enum NamingError {
    /// ECR would refuse it.
    #[error("{origin} names no image that ECR accepts")]
    Name {
        /// The key, the metadata, or the archive's name.
        origin: String,
        /// What is wrong with it.
        #[source]
        source: NameError,
    },
    /// Outside the key's first folder.
    #[error(
        "{origin} names the repository {repository}, which is not at or below {folder:?}, the first folder of the \
         key {key:?}"
    )]
    Outside {
        /// What named it.
        origin: String,
        /// The repository, without the stack's prefix.
        repository: Repository,
        /// The folder.
        folder: String,
        /// The key.
        key: String,
    },
    /// The natural slip.
    #[error(
        "the key {key:?} would make this image {literal}, but the archive calls it {archive_name}: which one was meant?"
    )]
    Slip {
        /// The key.
        key: String,
        /// What the key says, word for word.
        literal: String,
        /// What the archive says.
        archive_name: String,
        /// The two commands.
        commands: [String; 2],
    },
    /// The metadata names one image, and there are several.
    #[error("x-amz-meta-image names one image, {image:?}, and the archive holds {images}")]
    SeveralImages {
        /// The metadata.
        image: String,
        /// How many there are.
        images: usize,
    },
    /// Two images of one archive claim the same name.
    #[error("two images of the archive are both named {repository}:{tag}")]
    Twice {
        /// The repository.
        repository: Repository,
        /// The tag.
        tag: Tag,
    },
}

impl NamingError {
    /// What the uploader can do.
    pub fn fix(&self) -> String {
        match self {
            Self::Name { source, .. } => match source {
                NameError::Repository { suggestion: Some(name), .. } => {
                    format!("upload it under another key, such as {name}/TAG.tar")
                }
                NameError::Tag { suggestion: Some(tag), .. } => {
                    format!("upload it under another key, such as REPOSITORY/{tag}.tar")
                }
                NameError::Repository { suggestion: None, .. } | NameError::Tag { suggestion: None, .. } => {
                    "upload it as REPOSITORY/TAG.tar, or with --metadata image=REPOSITORY:TAG".to_owned()
                }
            },
            Self::Outside { folder, .. } => {
                format!("name a repository at or below {folder:?}, or upload into the folder of that repository")
            }
            Self::Slip { commands: [one, other], .. } => format!("{one}   or   {other}"),
            Self::SeveralImages { .. } => {
                "upload it without that metadata: the images keep the archive's names".to_owned()
            }
            Self::Twice { .. } => "save the images again, each under a name of its own".to_owned(),
        }
    }
}

/// Where each of `images` goes, in their order.
///
/// # Errors
///
/// [`NamingError`] (permanent); then none of them is imported.
pub fn resolve(upload: Upload<'_>, images: &[ArchiveImage]) -> Result<Vec<Target>, NamingError> {
    let (folder, stem) = split_key(upload.key);
    let targets = match (upload.image, images) {
        (Some(image), [only]) => vec![by_metadata(image, only)?],
        (Some(image), several) => {
            return Err(NamingError::SeveralImages { image: image.to_owned(), images: several.len() });
        }
        (None, [only]) if folder.is_some() => vec![by_key(upload, only)?],
        (None, images) => {
            let stem = folder.map_or_else(|| stem.to_owned(), |folder| format!("{folder}/{stem}"));
            let mut targets = Vec::with_capacity(images.len());
            for image in images {
                targets.push(by_archive(upload, &stem, image)?);
            }
            targets
        }
    };
    let mut claimed = BTreeMap::new();
    for (at, target) in targets.iter().enumerate() {
        within(upload, folder, target)?;
        for tag in &target.tags {
            // Several manifests of one image under one name are one image; two images are not.
            if let Some(other) = claimed.insert((target.repository.clone(), tag.clone()), at)
                && other != at
            {
                return Err(NamingError::Twice { repository: target.repository.clone(), tag: tag.clone() });
            }
        }
    }
    targets.into_iter().map(|target| prefixed(upload.prefix, target)).collect()
}

/// The folder of a key, without a closing slash, and its last part without the archive suffix.
fn split_key(key: &str) -> (Option<&str>, &str) {
    let (folder, name) = match key.rsplit_once('/') {
        Some((folder, name)) => (Some(folder), name),
        None => (None, key),
    };
    let lower = name.to_ascii_lowercase();
    let suffix = SUFFIXES.iter().find(|suffix| lower.ends_with(**suffix) && lower.len() > suffix.len());
    let stem = suffix.and_then(|suffix| name.get(..name.len() - suffix.len())).unwrap_or(name);
    (folder, stem)
}

fn repository(text: &str, origin: &str) -> Result<Repository, NamingError> {
    text.parse().map_err(|source| NamingError::Name { origin: origin.to_owned(), source })
}

fn tag(text: &str, origin: &str) -> Result<Tag, NamingError> {
    text.parse().map_err(|source| NamingError::Name { origin: origin.to_owned(), source })
}

/// The tag of an image that has none: so that nothing that is an image is a dead end.
fn tag_by_id(image: &ArchiveImage, origin: &str) -> Result<Tag, NamingError> {
    tag(&format!("id-{}", image.id().short()), origin)
}

/// The archive's own tags for `image`, or the one made from its ID.
fn own_tags(image: &ArchiveImage, origin: &str) -> Result<Vec<Tag>, NamingError> {
    let mut tags = Vec::new();
    for own in image.names.iter().filter_map(|name| name.tag.as_deref()) {
        let own = tag(own, origin)?;
        if !tags.contains(&own) {
            tags.push(own);
        }
    }
    if tags.is_empty() {
        tags.push(tag_by_id(image, origin)?);
    }
    Ok(tags)
}

fn by_metadata(text: &str, image: &ArchiveImage) -> Result<Target, NamingError> {
    let origin = format!("x-amz-meta-image {text:?}");
    let (name, tags) = split_tag(text.trim());
    let tags = match tags {
        Some(tags) => tags.split(',').map(|own| tag(own.trim(), &origin)).collect::<Result<_, _>>()?,
        None => own_tags(image, &origin)?,
    };
    Ok(Target { repository: repository(name, &origin)?, tags, named_by: NamedBy::Metadata })
}

fn by_key(upload: Upload<'_>, image: &ArchiveImage) -> Result<Target, NamingError> {
    let origin = format!("the key {:?}", upload.key);
    let (folder, stem) = split_key(upload.key);
    let folder = folder.unwrap_or_default();
    let target = |tags| Ok(Target { repository: repository(folder, &origin)?, tags, named_by: NamedBy::Key });
    for name in &image.names {
        let Some(own) = &name.repository else { continue };
        let component = own.rsplit('/').next().unwrap_or(own);
        let Some(rest) = stem.strip_prefix(component) else { continue };
        let rest = match rest.strip_prefix(['-', '_', '.']) {
            Some(rest) => rest,
            None if rest.is_empty() => rest,
            None => continue,
        };
        if folder.rsplit('/').next() == Some(component) {
            return match rest {
                "" => target(own_tags(image, &origin)?),
                version => target(vec![tag(version, &origin)?]),
            };
        }
        let version = Some(rest).filter(|rest| !rest.is_empty()).or(name.tag.as_deref()).unwrap_or("TAG");
        let archive_name = match &name.tag {
            Some(tag) => format!("{own}:{tag}"),
            None => own.clone(),
        };
        let (bucket, key) = (upload.bucket, upload.key);
        return Err(NamingError::Slip {
            key: key.to_owned(),
            literal: format!("{folder}:{stem}"),
            archive_name,
            commands: [
                format!("aws s3 cp FILE s3://{bucket}/{folder}/{component}/{version}.tar"),
                format!("aws s3 cp FILE s3://{bucket}/{key} --metadata image={folder}:{stem}"),
            ],
        });
    }
    target(vec![tag(stem, &origin)?])
}

fn by_archive(upload: Upload<'_>, stem: &str, image: &ArchiveImage) -> Result<Target, NamingError> {
    let named = image.names.iter().find_map(|name| name.repository.as_deref());
    let (text, origin) = match named {
        Some(own) => (own, format!("the archive's name {own:?}")),
        None => (stem, format!("the key {:?}", upload.key)),
    };
    let mut tags = Vec::new();
    for name in &image.names {
        // One image has one repository here: names in others are left to an upload of their own.
        if name.repository.as_deref().is_none_or(|own| own == text)
            && let Some(own) = &name.tag
        {
            let own = tag(own, &origin)?;
            if !tags.contains(&own) {
                tags.push(own);
            }
        }
    }
    if tags.is_empty() {
        tags.push(tag_by_id(image, &origin)?);
    }
    Ok(Target { repository: repository(text, &origin)?, tags, named_by: NamedBy::Archive })
}

/// The key's first folder is the uploader's authority.
fn within(upload: Upload<'_>, folder: Option<&str>, target: &Target) -> Result<(), NamingError> {
    let Some(first) = folder.and_then(|folder| folder.split('/').next()) else { return Ok(()) };
    if target.repository.is_at_or_below(first) {
        return Ok(());
    }
    let origin = match target.named_by {
        NamedBy::Metadata => format!("x-amz-meta-image {:?}", upload.image.unwrap_or_default()),
        NamedBy::Key => format!("the key {:?}", upload.key),
        NamedBy::Archive => "the archive".to_owned(),
    };
    Err(NamingError::Outside {
        origin,
        repository: target.repository.clone(),
        folder: first.to_owned(),
        key: upload.key.to_owned(),
    })
}

fn prefixed(prefix: &str, target: Target) -> Result<Target, NamingError> {
    if prefix.is_empty() {
        return Ok(target);
    }
    let origin = format!("the stack's repository prefix {prefix:?}");
    Ok(Target { repository: repository(&format!("{prefix}{}", target.repository), &origin)?, ..target })
}

#[cfg(test)]
mod tests;
