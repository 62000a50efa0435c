//! One row for each thing that a producer is known to do.

#![expect(clippy::too_many_lines, reason = "these are lists")]

use std::io::Write as _;

use local::samples::{Image, digest, docker_archive, gzipped, layer};
use serde_json::json;

use crate::builder::{
    DOCKER_CONFIG, DOCKER_GZIP, DOCKER_MANIFEST, DOCKER_PLAIN, FOREIGN, OCI_CONFIG, OCI_MANIFEST, OCI_ZSTD, Oci, Tar,
    hex, of,
};

/// What becomes of a row.
pub(crate) enum Outcome {
    Released(Expected),
    /// Refused, in words that contain these.
    Refused(&'static str),
}

/// What is in the registry afterwards.
#[derive(Default)]
pub(crate) struct Expected {
    /// The config digest of each image that runs, by the tag it is found under (all platforms of it).
    pub(crate) configs: Vec<String>,
    /// The manifest's digest, where the archive has it.
    pub(crate) manifest: Option<String>,
    /// The manifests of the images that run, where the archive has them.
    pub(crate) leaves: Vec<String>,
    /// Manifests that are there beside it.
    pub(crate) beside: Vec<String>,
    /// How many things the receipt says were left out.
    pub(crate) left_out: usize,
    /// In how many images the archive comes apart.
    pub(crate) images: usize,
}

/// An archive, who writes such, and what becomes of it.
pub(crate) struct Row {
    pub(crate) producer: &'static str,
    pub(crate) layout: &'static str,
    pub(crate) metadata: Vec<(&'static str, &'static str)>,
    pub(crate) bytes: Vec<u8>,
    pub(crate) outcome: Outcome,
}

impl Row {
    fn with(mut self, metadata: &[(&'static str, &'static str)]) -> Self {
        self.metadata = metadata.to_vec();
        self
    }
}

fn row(producer: &'static str, layout: &'static str, bytes: Vec<u8>, expected: Expected) -> Row {
    Row { producer, layout, metadata: vec![], bytes, outcome: Outcome::Released(expected) }
}

fn refused(producer: &'static str, layout: &'static str, bytes: Vec<u8>, words: &'static str) -> Row {
    Row { producer, layout, metadata: vec![], bytes, outcome: Outcome::Refused(words) }
}

/// An image that is built anew: its config is known, its manifest is not.
fn built(images: &[&Image]) -> Expected {
    Expected {
        configs: images.iter().map(|image| digest(&image.config())).collect(),
        images: images.len(),
        ..Expected::default()
    }
}

/// An image that is taken byte for byte.
fn exact(oci: &Oci, manifest: String) -> Expected {
    Expected {
        configs: oci.configs.clone(),
        leaves: oci.manifests.clone(),
        manifest: Some(manifest),
        images: 1,
        ..Expected::default()
    }
}

fn image(seed: u32) -> Image {
    Image::new("amd64", vec![layer("base", 1, 9_000), layer("app", seed, 5_000)])
}

fn arm(seed: u32) -> Image {
    Image::new("arm64", vec![layer("arm", seed, 4_000)])
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::stream::encode_all(bytes, 3).unwrap()
}

fn xz(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 6);
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn bzip2(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// `manifest.json` over one image whose config and layers lie under these paths.
fn listed(config: &str, layers: &[&str]) -> String {
    json!([{"Config": config, "RepoTags": null, "Layers": layers}]).to_string()
}

/// A Docker archive whose layers `store` writes, each under its own name.
fn docker_of(image: &Image, store: impl Fn(usize, &[u8]) -> (String, Vec<u8>)) -> Tar {
    let mut tar = Tar::default();
    let mut paths = Vec::new();
    for (at, layer) in image.layers.iter().enumerate() {
        let (path, bytes) = store(at, layer);
        tar.add(&path, bytes);
        paths.push(path);
    }
    let config = format!("{}.json", hex(&image.config()));
    tar.add(&config, image.config());
    tar.add("manifest.json", json!([{"Config": config, "RepoTags": null, "Layers": paths}]).to_string());
    tar
}

/// One image as an OCI layout, and its manifest's digest.
fn layout(image: &Image) -> (Oci, String) {
    let mut oci = Oci::default();
    let manifest = oci.image(image);
    oci.list(&manifest, &[("org.opencontainers.image.ref.name", "1")]);
    (oci, of(&manifest))
}

pub(crate) fn rows() -> Vec<Row> {
    let mut rows = docker();
    rows.extend(oci());
    rows.extend(companions());
    rows.extend(compressed());
    rows.extend(profiles());
    rows.extend(mistakes());
    rows
}

fn docker() -> Vec<Row> {
    let (one, two) = (image(2), image(3));
    let shared = {
        let mut tar = Tar::default();
        let [base, app] = [0, 1].map(|at| one.layers[at].clone());
        let v1 =
            |tar: Tar, id: &str| tar.folder(id).file(&format!("{id}/VERSION"), "1.0").file(&format!("{id}/json"), "{}");
        tar = v1(tar, "b1").file("b1/layer.tar", base);
        tar = v1(tar, "a1").file("a1/layer.tar", app);
        tar = v1(tar, "b2").symlink("b2/layer.tar", "../b1/layer.tar");
        tar = v1(tar, "a2").file("a2/layer.tar", &two.layers[1]);
        let (c1, c2) = (format!("{}.json", hex(&one.config())), format!("{}.json", hex(&two.config())));
        let list = json!([
            {"Config": c1, "RepoTags": ["rows/d-one:1", "rows/d-one:1.0"], "Layers": ["b1/layer.tar", "a1/layer.tar"]},
            {"Config": c2, "RepoTags": ["rows/d-two:2"], "Layers": ["b2/layer.tar", "a2/layer.tar"], "Parent": digest(&one.config())},
        ]);
        tar.file(&c1, one.config()).file(&c2, two.config()).file("manifest.json", list.to_string())
    };
    let podman = Tar::default()
        .file("base.tar", &one.layers[0])
        .file("app.tar", &one.layers[1])
        .symlink("x1/layer.tar", "../base.tar")
        .hardlink("x2/layer.tar", "app.tar")
        .file("c.json", one.config())
        .file("manifest.json", listed("c.json", &["x1/layer.tar", "x2/layer.tar"]));
    let kaniko = {
        let config = format!("sha256:{}", hex(&one.config()));
        let zipped: Vec<Vec<u8>> = one.layers.iter().map(|layer| gzipped(layer)).collect();
        let names: Vec<String> = zipped.iter().map(|layer| format!("{}.tar.gz", hex(layer))).collect();
        let mut tar = Tar::default();
        for (name, layer) in names.iter().zip(&zipped) {
            tar.add(name, layer);
        }
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        tar.file(&config, one.config()).file("manifest.json", listed(&config, &names))
    };
    let jib = Tar::default()
        .file("a.tar.gz", gzipped(&one.layers[0]))
        .file("b.tar.gz", gzipped(&one.layers[1]))
        .file("config.json", one.config())
        .file(
            "manifest.json",
            r#"[{"config":"config.json","repoTags":["rows/jib:1"],"layers":["a.tar.gz","b.tar.gz"]}]"#,
        );
    let nix = docker_of(&one, |at, layer| match at {
        0 => ("base/layer.tar".to_owned(), gzipped(layer)),
        _ => (format!("{at}/layer.tar"), layer.to_vec()),
    });
    let skopeo_zstd = docker_of(&one, |_, layer| (format!("{}.tar", hex(layer)), zstd(layer)));
    let odd = docker_of(&one, |at, layer| (format!("{at}.tar"), if at == 0 { xz(layer) } else { bzip2(layer) }));
    let foreign = {
        let base = gzipped(&one.layers[0]);
        let config = one.config();
        let source = json!({
            digest(&one.layers[0]): {"mediaType": FOREIGN, "digest": digest(&base), "size": base.len(),
                "urls": ["https://example.com/base.tar.gz"]}
        });
        let list = json!([{"Config": "c.json", "RepoTags": null, "Layers": ["base.tar.gz", "app.tar"], "LayerSources": source}]);
        Tar::default().file("app.tar", &one.layers[1]).file("c.json", config).file("manifest.json", list.to_string())
    };
    let v1 = {
        let (a, b) = ("a".repeat(64), "b".repeat(64));
        let base = json!({"id": a, "created": "2014-01-01T00:00:00Z", "os": "linux", "architecture": "amd64",
            "container_config": {"Cmd": ["/bin/sh", "-c", "#(nop) ADD file:x in /"]}});
        let top = json!({"id": b, "parent": a, "created": "2014-01-02T00:00:00Z", "os": "linux", "architecture": "amd64",
            "config": {"Cmd": ["/app"]}, "container_config": {"Cmd": ["/bin/sh", "-c", "make && install <x>"]}});
        Tar::default()
            .file(&format!("{b}/VERSION"), "1.0")
            .file(&format!("{b}/json"), top.to_string())
            .file(&format!("{b}/layer.tar"), &one.layers[1])
            .file(&format!("{a}/json"), base.to_string())
            .file(&format!("{a}/layer.tar"), &one.layers[0])
            .file("repositories", json!({"rows/legacy": {"1": b}}).to_string())
    };
    // What `docker load` computes: the top's json without its identity, keys sorted, `&`, `<` and `>` escaped.
    let v1_config = format!(
        concat!(
            r#"{{"architecture":"amd64","config":{{"Cmd":["/app"]}},"#,
            r#""container_config":{{"Cmd":["/bin/sh","-c","make \u0026\u0026 install \u003cx\u003e"]}},"#,
            r#""created":"2014-01-02T00:00:00Z","history":["#,
            r##"{{"created":"2014-01-01T00:00:00Z","created_by":"/bin/sh -c #(nop) ADD file:x in /"}},"##,
            r#"{{"created":"2014-01-02T00:00:00Z","created_by":"/bin/sh -c make \u0026\u0026 install \u003cx\u003e"}}],"#,
            r#""os":"linux","rootfs":{{"type":"layers","diff_ids":["{}","{}"]}}}}"#
        ),
        digest(&one.layers[0]),
        digest(&one.layers[1])
    );
    let v1_expected = Expected { configs: vec![digest(v1_config.as_bytes())], images: 1, ..Expected::default() };
    vec![
        row(
            "docker save, up to 24",
            "two images, three names, the shared layer a symlink",
            shared.bytes(),
            built(&[&one, &two]),
        ),
        row(
            "podman save, skopeo docker-archive",
            "layers by symlink and hardlink to other entries",
            podman.bytes(),
            built(&[&one]),
        ),
        row("kaniko, crane pull, ko", "`sha256:<hex>` config, gzip layers", kaniko.bytes(), built(&[&one])),
        row("jib buildTar", "lower-case keys, `config.json`", jib.bytes(), built(&[&one])),
        row("nix dockerTools", "mixed compression", nix.bytes(), built(&[&one])),
        row("skopeo docker-archive", "zstd layers", skopeo_zstd.bytes(), built(&[&one])),
        row("by hand", "xz and bzip2 layers", odd.bytes(), built(&[&one])),
        row("crane, Windows base", "foreign layer in `LayerSources`, bytes absent", foreign.bytes(), built(&[&one])),
        row("Docker before 1.10", "`repositories` alone", v1.bytes(), v1_expected),
        row(
            "bazel rules_oci",
            "manifest.json first, blobs under blobs/sha256",
            {
                let config = format!("blobs/sha256/{}", hex(&one.config()));
                let paths: Vec<String> =
                    one.layers.iter().map(|layer| format!("blobs/sha256/{}.tar.gz", hex(&gzipped(layer)))).collect();
                let mut tar = Tar::default()
                    .file("manifest.json", json!([{"Config": config, "RepoTags": [], "Layers": paths}]).to_string());
                tar.add(&config, one.config());
                for (path, layer) in paths.iter().zip(&one.layers) {
                    tar.add(path, gzipped(layer));
                }
                tar.bytes()
            },
            built(&[&one]),
        ),
    ]
}

fn oci() -> Vec<Row> {
    let (one, two) = (image(4), image(5));
    let (plain, digest_of_plain) = layout(&one);
    let docker_25 = {
        // Docker 25 with the graph driver: uncompressed layers, and for an image without a name an index of nothing.
        let mut oci = Oci::default();
        oci.image_of(&one, OCI_MANIFEST, OCI_CONFIG, |layer| {
            (layer.to_vec(), "application/vnd.oci.image.layer.v1.tar")
        });
        let layers: Vec<String> = one.layers.iter().map(|layer| format!("blobs/sha256/{}", hex(layer))).collect();
        let list =
            json!([{"Config": format!("blobs/sha256/{}", hex(&one.config())), "RepoTags": null, "Layers": layers}]);
        oci.tar
            .clone()
            .file("index.json", r#"{"schemaVersion":2,"manifests":null}"#)
            .file("manifest.json", list.to_string())
    };
    let docker_25_0_0 = {
        let mut oci = Oci::default();
        let config = oci.blob(&one.config(), OCI_CONFIG);
        let manifest = oci.json(
            &json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": null}),
            OCI_MANIFEST,
        );
        for layer in &one.layers {
            oci.blob(layer, "application/vnd.oci.image.layer.v1.tar");
        }
        oci.list(&manifest, &[]);
        let layers: Vec<String> = one.layers.iter().map(|layer| format!("blobs/sha256/{}", hex(layer))).collect();
        let list = json!([{"Config": format!("blobs/sha256/{}", hex(&one.config())), "RepoTags": ["rows/x:1"], "Layers": layers}]);
        oci.close().file("manifest.json", list.to_string())
    };
    let (sparse, sparse_digest) = {
        let mut oci = Oci::default();
        let there = oci.image(&one);
        let attestation = oci.attestation(&there);
        let mut absent = there.clone();
        absent["digest"] = json!(digest(b"absent"));
        absent["platform"]["architecture"] = json!("s390x");
        let index = oci.index(&[absent, there.clone(), attestation]);
        oci.list(&index, &[("io.containerd.image.name", "docker.io/library/x:1")]);
        (oci, of(&there))
    };
    let (pruned, pruned_left) = {
        let mut oci = Oci::default();
        let (amd, arm) = (oci.image(&one), oci.image(&arm(1)));
        let mut absent = amd.clone();
        absent["digest"] = json!(digest(b"absent"));
        let index = oci.index(&[amd, absent, arm]);
        oci.list(&index, &[]);
        (oci, 1)
    };
    let (nested, nested_digest) = {
        let mut oci = Oci::default();
        let (amd, arm) = (oci.image(&one), oci.image(&arm(2)));
        let attestation = oci.attestation(&amd);
        let inner = oci.index(&[amd, arm, attestation]);
        let outer = oci.index(std::slice::from_ref(&inner));
        oci.list(&outer, &[]);
        (oci, of(&outer))
    };
    let (hybrid, hybrid_digest) = {
        let mut oci = Oci::default();
        let manifest = oci.image_of(&one, DOCKER_MANIFEST, DOCKER_CONFIG, |layer| (layer.to_vec(), DOCKER_PLAIN));
        oci.list(&manifest, &[("org.opencontainers.image.ref.name", "")]);
        (oci, of(&manifest))
    };
    let (untyped, untyped_digest) = {
        let mut oci = Oci::default();
        oci.configs.push(digest(&one.config()));
        let config = oci.blob(&one.config(), OCI_CONFIG);
        let layer = oci.blob(&gzipped(&one.layers[0]), crate::builder::OCI_GZIP);
        let app = oci.blob(&gzipped(&one.layers[1]), crate::builder::OCI_GZIP);
        let manifest = oci.json(&json!({"schemaVersion": 2, "config": config, "layers": [layer, app]}), OCI_MANIFEST);
        oci.list(&manifest, &[]);
        (oci, of(&manifest))
    };
    let (zstd_layers, zstd_digest) = {
        let mut oci = Oci::default();
        let manifest = oci.image_of(&one, OCI_MANIFEST, OCI_CONFIG, |layer| (zstd(layer), OCI_ZSTD));
        oci.list(&manifest, &[]);
        (oci, of(&manifest))
    };
    let (foreign, foreign_digest) = {
        let mut oci = Oci::default();
        oci.configs.push(digest(&one.config()));
        let config = oci.blob(&one.config(), DOCKER_CONFIG);
        let base = gzipped(&one.layers[0]);
        let base = json!({"mediaType": FOREIGN, "digest": digest(&base), "size": base.len(), "urls": ["https://example.com/b"]});
        let app = oci.blob(&gzipped(&one.layers[1]), DOCKER_GZIP);
        let manifest = oci.json(
            &json!({"schemaVersion": 2, "mediaType": DOCKER_MANIFEST, "config": config, "layers": [base, app]}),
            DOCKER_MANIFEST,
        );
        oci.list(&manifest, &[]);
        (oci, of(&manifest))
    };
    let two_images = {
        let mut oci = Oci::default();
        let (a, b) = (oci.image(&one), oci.image(&two));
        oci.list(&a, &[("org.opencontainers.image.ref.name", "registry.example/rows/a:1")]);
        oci.list(&a, &[("org.opencontainers.image.ref.name", "registry.example/rows/a:1.0")]);
        oci.list(&b, &[("org.opencontainers.image.base.name", "registry.example/rows/b:2")]);
        oci
    };
    let dir = |version: &str| {
        let mut tar = Tar::default().file("version", version);
        let mut layers = Vec::new();
        for layer in &one.layers {
            let zipped = gzipped(layer);
            tar.add(&hex(&zipped), &zipped);
            layers.push(json!({"mediaType": DOCKER_GZIP, "digest": digest(&zipped), "size": zipped.len()}));
        }
        tar.add(&hex(&one.config()), one.config());
        let config = json!({"mediaType": DOCKER_CONFIG, "digest": digest(&one.config()), "size": one.config().len()});
        let manifest =
            json!({"schemaVersion": 2, "mediaType": DOCKER_MANIFEST, "config": config, "layers": layers}).to_string();
        (tar.file("manifest.json", &manifest), digest(manifest.as_bytes()))
    };
    let (dir, dir_digest) = dir("Directory Transport Version: 1.1\n");
    let in_folder = |prefix: &'static str, extra: bool| {
        let mut tar = plain.close();
        tar.prefix = prefix;
        tar.global_header = true;
        let mut bytes = tar.bytes();
        if extra {
            // Written in front: macOS's companion of the folder, and its own file.
            let front = Tar::default().file("._layout", "x").file(".DS_Store", "x").bytes();
            bytes = [&front[..front.len() - 1_024], &bytes].concat();
        }
        bytes
    };
    let expected = || exact(&plain, digest_of_plain.clone());
    let zarf = {
        let mut tar = plain.close();
        tar.prefix = "images/";
        let front = Tar::default()
            .file("zarf.yaml", "kind: ZarfPackageConfig")
            .file("checksums.txt", "x")
            .file("components/app.tar", "x")
            .bytes();
        zstd(&[&front[..front.len() - 1_024], &tar.bytes()].concat())
    };
    let hauler_expected = Expected { leaves: vec![digest_of_plain.clone()], images: 2, ..built(&[&one]) };
    let hauler = {
        let mut oci = plain.clone();
        let chart_config = oci.blob(b"{\"name\":\"chart\"}", "application/vnd.cncf.helm.config.v1+json");
        let chart_layer = oci.blob(b"chart", "application/vnd.cncf.helm.chart.content.v1.tar+gzip");
        let chart = oci.json(
            &json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": chart_config, "layers": [chart_layer]}),
            OCI_MANIFEST,
        );
        oci.top = vec![];
        let listed = json!({"mediaType": OCI_MANIFEST, "digest": digest_of_plain, "size": 0});
        oci.list(
            &listed,
            &[("kind", "dev.cosignproject.cosign/image"), ("io.containerd.image.name", "docker.io/rows/h-app:1")],
        );
        oci.list(&chart, &[("io.containerd.image.name", "docker.io/rows/h-chart:1")]);
        zstd(&oci.tar.clone().file("index.json", json!({"schemaVersion": 2, "manifests": oci.top}).to_string()).bytes())
    };
    vec![
        row(
            "docker save 25 to 29, graph driver",
            "`\"manifests\": null`, so manifest.json",
            docker_25.bytes(),
            built(&[&one]),
        ),
        row("docker save 25.0.0", "manifests without layers, so manifest.json", docker_25_0_0.bytes(), built(&[&one])),
        row(
            "docker save, containerd store",
            "index lists absent platforms: the image that is there, byte for byte",
            sparse.close().bytes(),
            Expected { left_out: 2, ..exact(&sparse, sparse_digest) },
        ),
        row(
            "ctr export --platform",
            "sparse index of two images that are there: pruned",
            pruned.close().bytes(),
            Expected { left_out: pruned_left, manifest: None, ..exact(&pruned, String::new()) },
        ),
        row(
            "ctr, nerdctl, k3s",
            "Docker manifest in an OCI layout, uncompressed layers, empty ref.name",
            hybrid.close().bytes(),
            exact(&hybrid, hybrid_digest),
        ),
        row("podman, skopeo oci-archive", "gzip layers, byte for byte", plain.close().bytes(), expected()),
        row(
            "skopeo oci-archive",
            "zstd layers, byte for byte",
            zstd_layers.close().bytes(),
            exact(&zstd_layers, zstd_digest),
        ),
        row(
            "buildah manifest push --all, buildx",
            "nested index, two platforms, attestation",
            nested.close().bytes(),
            exact(&nested, nested_digest),
        ),
        row("OCI 1.0 tools", "manifest without mediaType", untyped.close().bytes(), exact(&untyped, untyped_digest)),
        row(
            "crane, Windows base",
            "foreign layer kept with its URL",
            foreign.close().bytes(),
            exact(&foreign, foreign_digest),
        ),
        row(
            "umoci, oras, `tar -C layout .`",
            "`./` prefix, index.json first",
            {
                let mut tar = plain.close().reversed();
                tar.prefix = "./";
                tar.bytes()
            },
            expected(),
        ),
        row("`tar layout/`", "one wrapping folder, pax global header", in_folder("layout/", false), expected()),
        row("`tar layout/` on macOS", "the same beside other files", in_folder("layout/", true), expected()),
        row(
            "several images, several names",
            "index repeated per tag, a name in base.name",
            two_images.close().bytes(),
            Expected { images: 2, manifest: None, ..exact(&two_images, String::new()) },
        ),
        row(
            "skopeo and podman dir:, tarred",
            "manifest.json is the manifest",
            dir.bytes(),
            Expected {
                configs: vec![digest(&one.config())],
                manifest: Some(dir_digest),
                images: 1,
                ..Expected::default()
            },
        ),
        row("zarf package", ".tar.zst, layout in `images/`", zarf, expected()),
        row(
            "hauler save --containerd",
            ".tar.zst without oci-layout, a chart beside the image",
            hauler,
            hauler_expected,
        ),
    ]
}

fn companions() -> Vec<Row> {
    let one = image(6);
    let bundle = "application/vnd.dev.sigstore.bundle.v0.3+json";
    let unindexed = {
        let (mut oci, manifest) = layout(&one);
        let subject = oci.top[0].clone();
        let referrer = oci.referrer(&subject, bundle);
        let expected = Expected { beside: vec![of(&referrer)], ..exact(&oci, manifest) };
        row("cosign 3 save", "bundle that no index lists, found by its subject", oci.close().bytes(), expected)
    };
    let indexed = {
        let (mut oci, manifest) = layout(&one);
        let subject = oci.top[0].clone();
        let referrer = oci.referrer(&subject, "application/spdx+json");
        oci.list(&referrer, &[]);
        let expected = Expected { beside: vec![of(&referrer)], ..exact(&oci, manifest) };
        row("oras, buildx oci-artifact=true", "referrer in index.json", oci.close().bytes(), expected)
    };
    let refused_referrer = {
        let (mut oci, manifest) = layout(&one);
        let subject = oci.top[0].clone();
        oci.referrer(&subject, "text/spdx; charset=utf-8");
        let expected = Expected { left_out: 1, ..exact(&oci, manifest) };
        row("sigstore-js", "referrer whose media type ECR refuses: left out, named", oci.close().bytes(), expected)
    };
    let signature = {
        let (mut oci, manifest) = layout(&one);
        let config = oci.blob(br#"{"architecture":"","os":"","rootfs":{"type":"layers","diff_ids":["sha256:0000000000000000000000000000000000000000000000000000000000000000"]}}"#, OCI_CONFIG);
        let layer = oci.blob(b"{\"critical\":{}}", "application/vnd.dev.cosign.simplesigning.v1+json");
        let sig = oci.json(
            &json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": [layer]}),
            OCI_MANIFEST,
        );
        oci.list(&sig, &[("kind", "dev.cosignproject.cosign/sigs")]);
        let tag = format!("{}.sig", manifest.replace(':', "-"));
        let expected = Expected { beside: vec![of(&sig), tag], ..exact(&oci, manifest) };
        row(
            "cosign 1 and 2 save",
            "signature marked by `kind`, tagged as cosign looks for it",
            oci.close().bytes(),
            expected,
        )
    };
    vec![unindexed, indexed, refused_referrer, signature]
}

fn compressed() -> Vec<Row> {
    let one = image(7);
    let docker = docker_archive(&[(&one, &["x:1"])]);
    let (oci, manifest) = layout(&one);
    let tar = oci.close().bytes();
    let both = |bytes: &[u8], with: fn(&[u8]) -> Vec<u8>| {
        let (front, back) = bytes.split_at(bytes.len() / 2);
        [with(front), with(back)].concat()
    };
    let skippable = [&[0x5f, 0x2a, 0x4d, 0x18, 4, 0, 0, 0, 1, 2, 3, 4], zstd(&tar).as_slice()].concat();
    vec![
        row("`docker save | gzip`", "gzip", gzipped(&docker), built(&[&one])),
        row("`docker save | zstd`", "zstd", zstd(&docker), built(&[&one])),
        row("`docker save | xz`", "xz", xz(&docker), built(&[&one])),
        row("`docker save | bzip2`", "bzip2", bzip2(&docker), built(&[&one])),
        row("pigz, bgzip", "gzip of several members", both(&tar, gzipped), exact(&oci, manifest.clone())),
        row("pzstd", "zstd frames, one to be skipped", skippable, exact(&oci, manifest.clone())),
        row("pixz, `cat a.xz b.xz`", "xz streams", both(&tar, xz), exact(&oci, manifest.clone())),
        row("lbzip2, pbzip2", "bzip2 streams", both(&tar, bzip2), exact(&oci, manifest)),
    ]
}

fn profiles() -> Vec<Row> {
    let (amd_image, arm_image) = (image(8), arm(8));
    let mut oci = Oci::default();
    let (amd, arm) = (oci.image(&amd_image), oci.image(&arm_image));
    let attestation = oci.attestation(&amd);
    let index = oci.index(&[amd.clone(), arm.clone(), attestation.clone()]);
    oci.list(&index, &[]);
    let whole = oci.close().bytes();
    let only =
        |manifest: &serde_json::Value, image: &Image| Expected { manifest: Some(of(manifest)), ..built(&[image]) };
    let mut single = Oci::default();
    let lone = single.image(&amd_image);
    let beside = single.attestation(&lone);
    let around = single.index(&[lone.clone(), beside]);
    single.list(&around, &[]);
    let mut zstd_oci = Oci::default();
    let zstd_image = zstd_oci.image_of(&amd_image, OCI_MANIFEST, OCI_CONFIG, |layer| (zstd(layer), OCI_ZSTD));
    zstd_oci.list(&zstd_image, &[]);
    vec![
        row("profile lambda", "one platform out of an index, byte for byte", whole.clone(), only(&amd, &amd_image))
            .with(&[("profile", "lambda")]),
        row(
            "profile lambda, platform linux/arm64",
            "the platform that was asked for",
            whole.clone(),
            only(&arm, &arm_image),
        )
        .with(&[("profile", "lambda"), ("platform", "linux/arm64")]),
        row(
            "profile lambda",
            "zstd layers become gzip, the image ID stays",
            zstd_oci.close().bytes(),
            built(&[&amd_image]),
        )
        .with(&[("profile", "lambda"), ("platform", "x86_64")]),
        refused(
            "profile lambda",
            "no image for the platform",
            whole.clone(),
            "the profile lambda wants one image for linux/s390x",
        )
        .with(&[("profile", "lambda"), ("platform", "linux/s390x")]),
        row(
            "profile fargate",
            "two platforms without their attestation",
            whole,
            Expected { images: 1, leaves: vec![of(&amd), of(&arm)], ..built(&[&amd_image, &arm_image]) },
        )
        .with(&[("profile", "fargate")]),
        row(
            "profile fargate",
            "one image without the index around it, byte for byte",
            single.close().bytes(),
            only(&lone, &amd_image),
        )
        .with(&[("profile", "fargate")]),
    ]
}

fn mistakes() -> Vec<Row> {
    let one = image(9);
    let docker = docker_archive(&[(&one, &["x:1"])]);
    let empty = Image::new("amd64", vec![]);
    let mut buildkit = Oci::default();
    let manifest = buildkit.image(&empty);
    buildkit.list(&manifest, &[]);
    let buildkit = buildkit.close().file(
        "manifest.json",
        json!([{"Config": format!("blobs/sha256/{}", hex(&empty.config())), "RepoTags": null, "Layers": null}])
            .to_string(),
    );
    let mut child = Oci::default();
    let amd = child.image(&one);
    let mut features = amd.clone();
    features["platform"]["features"] = json!(["sse4"]);
    let index = child.index(&[features]);
    child.list(&index, &[]);
    let sparse_file = {
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(3);
        header.set_entry_type(tar::EntryType::Regular);
        tar.append_pax_extensions([("GNU.sparse.major", b"1".as_slice())]).unwrap();
        tar.append_data(&mut header, "l.tar", b"one".as_slice()).unwrap();
        tar.append_data(&mut header.clone(), "c.js", b"one".as_slice()).unwrap();
        let list = listed("c.json", &["l.tar"]);
        let sparse = Image::new("amd64", vec![b"one".to_vec()]);
        for (path, content) in [("c.json", sparse.config()), ("manifest.json", list.into_bytes())] {
            header.set_size(content.len() as u64);
            tar.append_data(&mut header, path, content.as_slice()).unwrap();
        }
        tar.into_inner().unwrap()
    };
    vec![
        refused("buildx type=docker", "`Layers: null`: an image without layers", buildkit.bytes(), "it has no layers"),
        refused("buildx", "platform.features in an index", child.close().bytes(), "platform.features"),
        refused(
            "`docker export`",
            "a root filesystem",
            Tar::default().file("etc/passwd", "x").file("usr/bin/x", "x").file("manifest.json.d/x", "x").bytes(),
            "it looks like a root filesystem",
        ),
        refused(
            "by mistake",
            "gzip twice",
            gzipped(&gzipped(&docker)),
            "compressed twice, with gzip and inside that with gzip",
        ),
        refused(
            "by mistake",
            "a zip file",
            [b"PK\x03\x04".as_slice(), &[0; 600]].concat(),
            "a zip file, not a tar archive",
        ),
        refused(
            "by mistake",
            "gzip that was cut off",
            {
                let whole = gzipped(&docker);
                whole[..whole.len() - 100].to_vec()
            },
            "the gzip stream is cut off",
        ),
        refused("tar --sparse", "a sparse layer", sparse_file, "it is a sparse file"),
        row("by mistake", "a plain tar called .tgz", docker, built(&[&one])),
    ]
}
