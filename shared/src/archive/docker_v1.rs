//! Docker 1.0 archives: `repositories` names, by repository and tag, the top of a chain of folders, each with `json`
//! and `layer.tar` (Docker image spec v1.0, "Combined Image JSON + Filesystem Changeset Format").
//!
//! Written by Docker before 1.10 and by tools that stayed with it. There is no image config as registries want it, so
//! one is built as `docker load` does: the top layer's `json` without what identified it, with `rootfs` and `history`
//! added, keys sorted. The same archive gives the same config, and so the same image ID, every time.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};

use super::contents::{
    ArchiveImage, Blob, Content, Contents, DockerImage, DockerLayer, Files, LayerBytes, Layout, Stored,
};
use super::{ArchiveError, Extent, docker};
use crate::image::manifest::Platform;
use crate::image::{Descriptor, DiffId, Digest, MediaType};
use crate::limits;
use crate::naming::ArchiveName;
use crate::object::Source;

pub(super) const REPOSITORIES: &str = "repositories";

/// What we read of a layer's `json`.
#[derive(Debug, Deserialize)]
struct V1Json {
    #[serde(default)]
    parent: Option<String>,
    #[serde(default)]
    created: Option<String>,
    #[serde(default)]
    author: Option<String>,
    #[serde(default)]
    comment: Option<String>,
    #[serde(default)]
    container_config: Option<V1Command>,
    #[serde(flatten)]
    platform: Platform,
}

#[derive(Debug, Deserialize)]
struct V1Command {
    #[serde(rename = "Cmd", default)]
    cmd: Option<Vec<String>>,
}

/// A line of the config's history (OCI image spec, `config.md`).
#[derive(Debug, Serialize)]
struct History {
    #[serde(skip_serializing_if = "Option::is_none")]
    created: Option<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    created_by: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    author: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    comment: Option<String>,
}

impl History {
    /// About as long as it is written.
    fn bytes(&self) -> u64 {
        let given = [&self.created, &self.author, &self.comment].into_iter().flatten();
        given.chain([&self.created_by]).map(|text| text.len() as u64).sum()
    }
}

#[derive(Debug, Serialize)]
struct RootFs<'a> {
    r#type: &'static str,
    diff_ids: &'a [DiffId],
}

/// What identified a layer, and is not in an image config.
const IDENTITY: [&str; 6] = ["id", "parent", "Size", "parent_id", "layer_id", "throwaway"];

pub(super) async fn read<S: Source>(files: &Files<'_, S>) -> Result<Contents, ArchiveError> {
    let mut configs: Vec<&str> = files.paths().filter(|path| docker::is_config_name(path)).collect();
    configs.sort_unstable();
    if let Some(config) = configs.first() {
        return Err(ArchiveError::LostManifest { config: (*config).to_owned() });
    }
    let bytes = files.json(REPOSITORIES, "a Docker 1.0 archive").await?;
    let repositories: BTreeMap<String, BTreeMap<String, String>> =
        serde_json::from_slice(&bytes).map_err(|source| ArchiveError::BadJson {
            entry: REPOSITORIES.to_owned(),
            wanted: "repositories with tags and layer IDs",
            source,
        })?;
    let mut tops: BTreeMap<String, Vec<ArchiveName>> = BTreeMap::new();
    for (repository, tags) in repositories {
        for (tag, id) in tags {
            tops.entry(id).or_default().extend(ArchiveName::of_image(&format!("{repository}:{tag}")));
        }
    }
    if tops.is_empty() {
        return Err(ArchiveError::NamesNothing { entry: REPOSITORIES.to_owned() });
    }
    if tops.len() > limits::IMAGES {
        return Err(ArchiveError::OverLimit {
            what: "the number of images in repositories".to_owned(),
            offset: files.file(REPOSITORIES, "a Docker 1.0 archive")?.offset,
            found: tops.len() as u64,
            limit: limits::IMAGES as u64,
        });
    }
    let mut images = Vec::with_capacity(tops.len());
    let mut diff_ids = BTreeMap::new();
    for (top, names) in tops {
        images.push(ArchiveImage { names, content: image(files, &top, &mut diff_ids).await? });
    }
    Ok(Contents { layout: Layout::DockerV1, images, left_out: Vec::new() })
}

/// The image whose chain of layers ends with `top`.
async fn image<S: Source>(
    files: &Files<'_, S>,
    top: &str,
    known: &mut BTreeMap<u64, DiffId>,
) -> Result<Content, ArchiveError> {
    let bad =
        |entry: String| move |source| ArchiveError::BadJson { entry, wanted: "a layer's json of Docker 1.0", source };
    // The uppermost layer's `json`, of which the config is made.
    let mut uppermost = None;
    let mut chain = Vec::new();
    let mut next = Some(top.to_owned());
    let mut named_by = REPOSITORIES.to_owned();
    let mut history_bytes = 0_u64;
    while let Some(id) = next {
        let entry = format!("{id}/json");
        if chain.len() == limits::LAYERS {
            return Err(ArchiveError::OverLimit {
                what: format!("the number of layers below {top}"),
                offset: files.file(&entry, &named_by)?.offset,
                found: limits::LAYERS.saturating_add(1) as u64,
                limit: limits::LAYERS as u64,
            });
        }
        let bytes = files.json(&entry, &named_by).await?;
        let json: V1Json = serde_json::from_slice(&bytes).map_err(bad(entry.clone()))?;
        let line = history(&json);
        history_bytes = history_bytes.saturating_add(line.bytes());
        if history_bytes > limits::JSON_BYTES {
            return Err(ArchiveError::OverLimit {
                what: format!("the history of the layers below {top}"),
                offset: files.file(&entry, &named_by)?.offset,
                found: history_bytes,
                limit: limits::JSON_BYTES,
            });
        }
        next = json.parent.filter(|parent| !parent.is_empty());
        uppermost.get_or_insert((json.platform, bytes));
        chain.push((id, line));
        named_by = entry;
    }
    // Lowest first from here on.
    chain.reverse();
    let mut layers = Vec::with_capacity(chain.len());
    for (id, _) in &chain {
        let extent = files.file(&format!("{id}/layer.tar"), REPOSITORIES)?;
        let stored = files.stored(&extent).await?;
        if stored != Stored::Plain {
            return Err(ArchiveError::Unsupported { layout: "a Docker 1.0 archive with compressed layers" });
        }
        let diff_id = match known.get(&extent.offset) {
            Some(diff_id) => *diff_id,
            None => docker::hash_plain(files, &extent).await?,
        };
        known.insert(extent.offset, diff_id);
        layers.push(DockerLayer { diff_id, bytes: LayerBytes::Here { extent, stored } });
    }
    let diff_ids: Vec<DiffId> = layers.iter().map(|layer| layer.diff_id).collect();
    let history: Vec<History> = chain.into_iter().map(|(_, line)| line).collect();
    // The chain has its top at least.
    let Some((platform, bytes)) = uppermost else {
        return Err(ArchiveError::NamesNothing { entry: REPOSITORIES.to_owned() });
    };
    let built = build_config(&bytes, &diff_ids, &history).map_err(bad(format!("{top}/json")))?;
    let digest = Digest::of(&built);
    let descriptor = Descriptor::new(MediaType::OCI_CONFIG, digest, built.len() as u64);
    let extent = Extent::made(&format!("{top}/json"), built);
    let platform = Some(platform).filter(|platform| !platform.architecture.is_empty());
    Ok(Content::Docker(Box::new(DockerImage { config: Blob { descriptor, extent }, platform, layers })))
}

fn history(json: &V1Json) -> History {
    let command = json.container_config.as_ref().and_then(|config| config.cmd.as_deref()).unwrap_or_default();
    let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    History {
        created: given(&json.created),
        created_by: command.join(" "),
        author: given(&json.author),
        comment: given(&json.comment),
    }
}

/// The config around `top`, the uppermost layer's `json`, whose other values stay as they were written.
fn build_config(top: &[u8], diff_ids: &[DiffId], history: &[History]) -> Result<Vec<u8>, serde_json::Error> {
    let mut config: BTreeMap<String, Box<RawValue>> = serde_json::from_slice(top)?;
    for key in IDENTITY {
        config.remove(key);
    }
    config.insert("rootfs".to_owned(), to_raw_value(&RootFs { r#type: "layers", diff_ids })?);
    config.insert("history".to_owned(), to_raw_value(history)?);
    let written = serde_json::to_string(&config)?;
    // Go, which `docker load` is written in, escapes these inside texts; elsewhere in JSON they do not occur.
    let escaped = written.replace('&', "\\u0026").replace('<', "\\u003c").replace('>', "\\u003e");
    Ok(escaped.into_bytes())
}
