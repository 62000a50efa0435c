//! Archives as each producer writes them, built here: whatever the writer, its layout is a list of tar entries.

use local::samples::{Image, digest, gzipped};
use serde_json::{Value, json};
use tar::{EntryType, Header};

pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(crate) const OCI_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
pub(crate) const OCI_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
pub(crate) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub(crate) const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
pub(crate) const DOCKER_PLAIN: &str = "application/vnd.docker.image.rootfs.diff.tar";
pub(crate) const DOCKER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
pub(crate) const FOREIGN: &str = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";

/// The hex digits of the digest of `bytes`.
pub(crate) fn hex(bytes: &[u8]) -> String {
    digest(bytes).split_off("sha256:".len())
}

/// A tar under construction.
#[derive(Default, Clone)]
pub(crate) struct Tar {
    entries: Vec<(EntryType, String, Vec<u8>, String)>,
    /// In front of every path.
    pub(crate) prefix: &'static str,
    /// Before everything, as git and others write it.
    pub(crate) global_header: bool,
}

impl Tar {
    pub(crate) fn file(mut self, path: &str, content: impl AsRef<[u8]>) -> Self {
        self.add(path, content);
        self
    }

    pub(crate) fn add(&mut self, path: &str, content: impl AsRef<[u8]>) {
        self.entries.push((EntryType::Regular, path.into(), content.as_ref().to_vec(), String::new()));
    }

    pub(crate) fn folder(mut self, path: &str) -> Self {
        self.entries.push((EntryType::Directory, path.into(), vec![], String::new()));
        self
    }

    pub(crate) fn symlink(mut self, path: &str, target: &str) -> Self {
        self.entries.push((EntryType::Symlink, path.into(), vec![], target.into()));
        self
    }

    pub(crate) fn hardlink(mut self, path: &str, target: &str) -> Self {
        self.entries.push((EntryType::Link, path.into(), vec![], format!("{}{target}", self.prefix)));
        self
    }

    /// The other way round: what comes last here comes first.
    pub(crate) fn reversed(mut self) -> Self {
        self.entries.reverse();
        self
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        if self.global_header {
            let record = b"52 comment=0123456789012345678901234567890123456789\n";
            let mut header = Header::new_ustar();
            header.set_entry_type(EntryType::XGlobalHeader);
            header.set_size(record.len() as u64);
            header.set_path("pax_global_header").unwrap();
            header.set_cksum();
            tar.append(&header, record.as_slice()).unwrap();
        }
        for (kind, path, content, target) in &self.entries {
            let mut header = Header::new_gnu();
            header.set_entry_type(*kind);
            header.set_mode(0o444);
            header.set_size(content.len() as u64);
            let path = format!("{}{path}", self.prefix);
            match kind {
                EntryType::Regular | EntryType::Directory => tar.append_data(&mut header, path, content.as_slice()),
                _ => tar.append_link(&mut header, path, target),
            }
            .unwrap();
        }
        tar.into_inner().unwrap()
    }
}

/// An OCI layout under construction.
#[derive(Default, Clone)]
pub(crate) struct Oci {
    pub(crate) tar: Tar,
    pub(crate) top: Vec<Value>,
    /// The config digests of its images.
    pub(crate) configs: Vec<String>,
    /// The digests of their manifests.
    pub(crate) manifests: Vec<String>,
}

impl Oci {
    /// Adds a blob; its descriptor.
    pub(crate) fn blob(&mut self, content: &[u8], media_type: &str) -> Value {
        self.tar.add(&format!("blobs/sha256/{}", hex(content)), content);
        json!({"mediaType": media_type, "digest": digest(content), "size": content.len()})
    }

    pub(crate) fn json(&mut self, content: &Value, media_type: &str) -> Value {
        self.blob(content.to_string().as_bytes(), media_type)
    }

    /// An image with gzip layers; its manifest's descriptor, with the platform.
    pub(crate) fn image(&mut self, image: &Image) -> Value {
        self.image_of(image, OCI_MANIFEST, OCI_CONFIG, |layer| (gzipped(layer), OCI_GZIP))
    }

    /// An image whose layers `store` writes.
    pub(crate) fn image_of(
        &mut self,
        image: &Image,
        media_type: &str,
        config_type: &str,
        store: impl Fn(&[u8]) -> (Vec<u8>, &'static str),
    ) -> Value {
        self.configs.push(digest(&image.config()));
        let config = self.blob(&image.config(), config_type);
        let mut layers = Vec::new();
        for layer in &image.layers {
            let (bytes, layer_type) = store(layer);
            layers.push(self.blob(&bytes, layer_type));
        }
        let manifest = json!({"schemaVersion": 2, "mediaType": media_type, "config": config, "layers": layers});
        let mut descriptor = self.json(&manifest, media_type);
        self.manifests.push(of(&descriptor));
        descriptor["platform"] = json!({"os": "linux", "architecture": image.architecture});
        descriptor
    }

    /// An index over `children`; its descriptor.
    pub(crate) fn index(&mut self, children: &[Value]) -> Value {
        self.json(&json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": children}), OCI_INDEX)
    }

    /// What BuildKit writes beside `image`.
    pub(crate) fn attestation(&mut self, image: &Value) -> Value {
        let config = self
            .blob(br#"{"architecture":"unknown","os":"unknown","rootfs":{"type":"layers","diff_ids":[]}}"#, OCI_CONFIG);
        let layer = self.blob(
            format!(r#"{{"_type":"in-toto","subject":{}}}"#, image["digest"]).as_bytes(),
            "application/vnd.in-toto+json",
        );
        let manifest = json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": [layer]});
        let mut descriptor = self.json(&manifest, OCI_MANIFEST);
        descriptor["platform"] = json!({"os": "unknown", "architecture": "unknown"});
        descriptor["annotations"] = json!({
            "vnd.docker.reference.type": "attestation-manifest",
            "vnd.docker.reference.digest": image["digest"],
        });
        descriptor
    }

    /// What speaks of `subject`, as cosign 3 or oras write it.
    pub(crate) fn referrer(&mut self, subject: &Value, artifact_type: &str) -> Value {
        let config = self.blob(b"{}", "application/vnd.oci.empty.v1+json");
        let layer = self.blob(br#"{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json"}"#, artifact_type);
        let subject = json!({"mediaType": subject["mediaType"], "digest": subject["digest"], "size": subject["size"]});
        let manifest = json!({
            "schemaVersion": 2, "mediaType": OCI_MANIFEST, "artifactType": artifact_type,
            "config": config, "layers": [layer], "subject": subject,
        });
        self.json(&manifest, OCI_MANIFEST)
    }

    /// Lists `descriptor` in `index.json`, with annotations.
    pub(crate) fn list(&mut self, descriptor: &Value, annotations: &[(&str, &str)]) {
        let mut entry = descriptor.clone();
        for (key, value) in annotations {
            entry["annotations"][*key] = json!(value);
        }
        self.top.push(entry);
    }

    /// The tar with `index.json` and `oci-layout` at its end.
    pub(crate) fn close(&self) -> Tar {
        self.tar
            .clone()
            .file("index.json", json!({"schemaVersion": 2, "manifests": self.top}).to_string())
            .file("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#)
    }
}

/// The digest in a descriptor.
pub(crate) fn of(descriptor: &Value) -> String {
    descriptor["digest"].as_str().unwrap().to_owned()
}
