#!/usr/bin/env python3
"""The page of `gantry up` in a real browser: Debian's Chromium, driven by Playwright.

    python tests/browser/page.py GANTRY [FOLDER-FOR-PICTURES]

Uploads by dropping files, watches them go to released, held and failed, copies, uses the keyboard, and looks at names,
colours and widths. With a second argument it writes the pictures of the documentation.
"""

import http.client
import json
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request

from playwright.sync_api import Page, expect, sync_playwright

from archives import docker, layer

MIB = 1 << 20
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]
FINDINGS = [
    {"repository": "team/old", "findings": [
        {"name": "CVE-2026-1234", "severity": "CRITICAL", "package": "openssl", "version": "3.0.1", "fixed_in": "3.0.2"},
        {"name": "CVE-2026-0007", "severity": "MEDIUM", "package": "zlib", "version": "1.2.13"},
    ]},
    {"repository": "*", "findings": [{"name": "CVE-2026-0007", "severity": "MEDIUM", "package": "zlib", "version": "1.2.13"}]},
]
HOSTILE = "<img src=x onerror=alert(1)>&'.tar"

# Drops files on the page as the desktop does: an event with the files in it.
DROP = """([files]) => {
  const carried = new DataTransfer();
  for (const [name, base64] of files) {
    const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
    carried.items.add(new File([bytes], name));
  }
  for (const kind of ["dragenter", "dragover", "drop"]) {
    document.getElementById("drop").dispatchEvent(
      new DragEvent(kind, { dataTransfer: carried, bubbles: true, cancelable: true }));
  }
}"""


class Up:
    """A `gantry up` of its own."""

    def __init__(self, gantry: str, folder: pathlib.Path):
        data = folder / "data"
        data.mkdir()
        (data / "findings.json").write_text(json.dumps(FINDINGS))
        arguments = [gantry, "up", "--port", "0", "--json", "--data", str(data), "--set", "ReleaseGate=scan"]
        self.process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
        self.where = json.loads(self.process.stdout.readline())
        self.url = self.where["page"]
        self.let_mount()

    def let_mount(self):
        """An account's owner does this once; the embedded registry looks at the access key alone."""
        headers = {
            "X-Amz-Target": "AmazonEC2ContainerRegistry_V20150921.PutAccountSetting",
            "Content-Type": "application/x-amz-json-1.1",
            "Authorization": "AWS4-HMAC-SHA256 Credential=AKIAGANTRYUSER/20260101/us-east-1/ecr/aws4_request",
        }
        body = json.dumps({"name": "BLOB_MOUNTING", "value": "ENABLED"}).encode()
        assert asked(self.where["endpoint"], headers, body) == 200

    def stop(self):
        self.process.send_signal(signal.SIGINT)
        assert self.process.wait(20) == 0, "up ends well"


def drop(page: Page, name: str, files: dict[str, bytes]):
    import base64

    page.fill("#as", name)
    page.evaluate(DROP, [[[file, base64.b64encode(content).decode()] for file, content in files.items()]])


def row(page: Page, key: str):
    return page.locator("article").filter(has=page.get_by_role("heading", name=key, exact=True))


def until(page: Page, key: str, state: str):
    expect(row(page, key).locator(".state")).to_have_text(state, timeout=30_000)
    return row(page, key)


def uploads(page: Page):
    """From an empty page to uploads in each state."""
    expect(page.locator("#live")).to_have_text("live")
    expect(page.get_by_text("Nothing has been uploaded yet.")).to_be_visible()
    whole = docker("broken:1", [layer("srv/broken", 7, MIB)])
    drop(page, "team/broken:1", {"broken.tar": whole[: len(whole) // 2]})
    failed = until(page, "team/broken/1.tar", "failed")
    expect(failed.locator(".todo p").first).to_contain_text("What to do: ")
    expect(failed.locator(".todo")).to_contain_text("nothing was tagged: the archive is cut off")

    base = layer("usr/lib/base", 1, 6 * MIB)
    site = layer("srv/site", 2, 2 * MIB)
    drop(page, "team/my-app:1.4.1", {"my-app.tar": docker("my-app:1.4.1", [base, site, layer("srv/app", 3, MIB)])})
    released = until(page, "team/my-app/1.4.1.tar", "released")
    expect(released.locator(".bar svg")).to_have_attribute("aria-label", re.compile("^Layers by size: 4 sent"))
    # One below the same first folder gives its layers.
    drop(page, "team/other:1", {"other.tar": docker("other:1", [base, site, layer("srv/other", 5, 3 * MIB)])})
    mounted = until(page, "team/other/1.tar", "released")
    expect(mounted.locator(".bar svg")).to_have_attribute("aria-label", re.compile("2 sent, .* 2 mounted"))

    drop(page, "team/old:0.9.0", {"old.tar": docker("old:0.9.0", [base, layer("srv/old", 6, 2 * MIB)])})
    held = until(page, "team/old/0.9.0.tar", "held")
    todo = held.locator(".todo")
    expect(todo.locator("p").first).to_contain_text("What to do: ")
    expect(todo).to_contain_text("critical CVE-2026-1234 in openssl 3.0.1; at most high is allowed")

    drop(page, "team/my-app:1.4.2", {"my-app.tar": docker("my-app:1.4.2", [base, site, layer("srv/app", 4, 3 * MIB)])})
    released = until(page, "team/my-app/1.4.2.tar", "released")
    expect(released.locator(".bar svg")).to_have_attribute("aria-label", re.compile("2 sent, .* 2 reused"))
    expect(released.get_by_text("read back whole, 4 blobs")).to_be_visible()
    expect(released.get_by_text("pass by policy default, 1 medium")).to_be_visible()

    flow = page.locator("#flow")
    for state, count in [("released", "3"), ("held", "1"), ("failed", "1"), ("importing", "0")]:
        expect(flow.locator(f".{state} b")).to_have_text(count)


def copies(page: Page):
    button = row(page, "team/my-app/1.4.2.tar").get_by_role("button", name="Copy the image by its digest")
    button.click()
    expect(button).to_have_text("Copied")
    copied = page.evaluate("navigator.clipboard.readText()")
    assert re.fullmatch(r"\S+/team/my-app@sha256:[0-9a-f]{64}", copied), copied
    page.get_by_role("button", name="Copy the command").click()
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied.startswith("aws --endpoint-url http://127.0.0.1:") and " s3 cp " in copied, copied


def keyboard(page: Page):
    """Everything can be reached and used by keys, and what has focus keeps it when the row changes."""
    names = []
    page.locator("body").press("Tab")
    for _ in range(60):
        name = page.evaluate(
            "(() => { const one = document.activeElement;"
            " return one.getAttribute('aria-label') ?? one.labels?.[0]?.textContent ?? one.textContent })()")
        names.append(name.strip())
        page.keyboard.press("Tab")
    for wanted in ["Choose files", "as", "Copy the command", "Copy the image’s name", "Receipt and events"]:
        assert wanted in names, (wanted, names)
    story = row(page, "team/old/0.9.0.tar").locator("summary")
    story.focus()
    page.keyboard.press("Enter")
    opened = row(page, "team/old/0.9.0.tar").locator(".story pre")
    expect(opened.first).to_contain_text('"state": "held"')
    expect(opened.filter(has_text='"detail-type": "Image Held"')).to_have_count(1)
    expect(story).to_be_focused()
    page.keyboard.press("Enter")
    expect(opened.first).to_be_hidden()


def names(page: Page):
    """What a screen reader says."""
    for role, name in [
        ("region", "Drop an image tarball"), ("region", "Uploads"), ("list", "Where the uploads are"),
        ("list", "Uploads that need a person, or that were overtaken"), ("article", "team/old/0.9.0.tar"),
        ("textbox", "as"),
    ]:
        expect(page.get_by_role(role, name=name, exact=True)).to_have_count(1)
    nameless = page.evaluate(
        "[...document.querySelectorAll('button, a, summary, [role=img]')]"
        ".filter((one) => !(one.getAttribute('aria-label') ?? one.textContent).trim()).length")
    assert nameless == 0, "controls without a name"
    expect(page.get_by_role("status")).to_have_count(1)


# The contrast of every text with what is behind it, as WCAG 2 computes it.
CONTRAST = """() => {
  const channels = (colour) => (colour.match(/[\\d.]+/g) ?? []).map(Number);
  const light = ([r, g, b]) => {
    const line = (c) => { c /= 255; return c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4; };
    return 0.2126 * line(r) + 0.7152 * line(g) + 0.0722 * line(b);
  };
  const behind = (one) => {
    for (; one; one = one.parentElement) {
      const colour = channels(getComputedStyle(one).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  const bad = [];
  for (const one of document.querySelectorAll('body *')) {
    const own = [...one.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if (!own || one.closest('script, style, title, .quiet, [hidden]')) continue;
    const [a, b] = [light(channels(getComputedStyle(one).color)), light(behind(one))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) bad.push([one.className, one.textContent.slice(0, 30), ratio.toFixed(2)]);
  }
  return bad;
}"""


def colours(page: Page):
    grounds = []
    for scheme in ["light", "dark"]:
        page.emulate_media(color_scheme=scheme)
        grounds.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        bad = page.evaluate(CONTRAST)
        assert bad == [], (scheme, bad)
    assert grounds[0] != grounds[1], grounds
    page.emulate_media(color_scheme="light")


def narrow(page: Page):
    page.set_viewport_size({"width": 400, "height": 900})
    wider = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert wider <= 0, f"at 400 px the page is {wider} px too wide"


def hostile(page: Page):
    """A key that is markup is text."""
    dialogs = []
    page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    drop(page, "", {HOSTILE: b"no archive at all\n" * 99})
    until(page, HOSTILE, "failed")
    assert page.locator("main img").count() == 0
    drop(page, "", {"mine.tar.receipt.json": b"{}"})
    expect(page.get_by_role("alert")).to_contain_text("receipts are the pipeline's to write")
    assert dialogs == [], dialogs


def asked(url: str, headers: dict[str, str], body: bytes | None = None) -> int:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data=body, headers=headers), timeout=10) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def strangers(up: Up):
    host = up.url.removeprefix("http://").rstrip("/")
    for headers, body, path, status in [
        ({"Host": "gantry.example"}, None, "", 421),
        ({"Host": "gantry.example:" + host.split(":")[1]}, None, "events", 421),
        ({}, None, "", 200),
        ({}, b"x", "uploads?file=a.tar", 403),
        ({"Origin": "http://gantry.example"}, b"x", "uploads?file=a.tar", 403),
        ({"Origin": f"http://{host}", "Sec-Fetch-Site": "cross-site"}, b"x", "uploads?file=a.tar", 403),
        ({"Origin": f"http://{host}"}, b"x", "uploads?file=", 400),
        ({"Origin": f"http://{host}"}, b"x", "elsewhere", 405),
    ]:
        got = asked(up.url + path, headers, body)
        assert got == status, (headers, path, got, status)
    with urllib.request.urlopen(up.url) as answer:
        policy = answer.headers["content-security-policy"]
    assert "unsafe" not in policy and "default-src 'none'" in policy, policy
    with urllib.request.urlopen(up.url + "events") as answer:
        events = [json.loads(line) for line in answer]
    kinds = {event["detail-type"] for event in events}
    assert {"Image Imported", "Image Released", "Image Held", "Import Failed"} <= kinds, kinds


def peak_mib(up: Up) -> int:
    status = pathlib.Path(f"/proc/{up.process.pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) >> 10


def streams(up: Up, page: Page):
    """A large file goes through in pieces; one that breaks off leaves nothing."""
    host = up.url.removeprefix("http://").rstrip("/")
    size = 320 * MIB

    def post(key: str, of: int) -> int | None:
        connection = http.client.HTTPConnection(host, timeout=60)
        connection.putrequest("POST", f"/uploads?file={key}")
        connection.putheader("Origin", f"http://{host}")
        connection.putheader("Content-Length", str(size))
        connection.endheaders()
        for _ in range(of // MIB):
            connection.send(bytes(MIB))
        status = connection.getresponse().status if of == size else None
        connection.close()
        return status

    before = peak_mib(up)
    post("broken-off.tar", 64 * MIB)
    assert post("large.tar", size) == 201
    grown = peak_mib(up) - before
    assert grown < 128, f"an upload of {size >> 20} MiB took {grown} MiB of memory"
    until(page, "large.tar", "failed")
    expect(page.get_by_role("heading", name="broken-off.tar")).to_have_count(0)


def without_scripts(browser, up: Up):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(up.url)
    expect(page.get_by_role("heading", name="team/my-app/1.4.2.tar")).to_be_visible()
    expect(page.get_by_text("s3 cp my-app.tar")).to_be_visible()
    assert page.locator("button:visible").count() == 0, "no button that does nothing"
    row(page, "team/old/0.9.0.tar").locator("summary").click()
    row(page, "team/old/0.9.0.tar").get_by_role("link").click()
    expect(page.locator("pre").first).to_contain_text('"state": "held"')
    context.close()


def one_file(context, gantry: str, folder: pathlib.Path, key: str) -> Page:
    """The page of one upload as a file, opened without a server."""
    target = folder / "upload.html"
    subprocess.run([gantry, "status", key, "--data", str(folder / "data"), "--html", str(target)], check=True)
    page = context.new_page()
    wrong = []
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    page.on("request", lambda request: None if request.url.startswith("file:") else wrong.append(request.url))
    page.goto(target.as_uri())
    expect(page.locator(".state")).to_have_text("held")
    assert page.evaluate("getComputedStyle(document.querySelector('article')).borderRadius") == "8px", "it has its style"
    assert wrong == [], wrong
    return page


def picture(page: Page, pictures: pathlib.Path | None, name: str, height: int | None = None):
    if pictures:
        expect(page.get_by_text("Copied", exact=True)).to_have_count(0)
        page.evaluate("document.activeElement.blur(); scrollTo(0, 0)")
        clip = {"x": 0, "y": 0, "width": page.viewport_size["width"], "height": height} if height else None
        page.screenshot(path=pictures / f"{name}.png", full_page=True, clip=clip)


def main(gantry: str, pictures: pathlib.Path | None):
    folder = pathlib.Path(tempfile.mkdtemp(prefix="gantry-browser-"))
    up = Up(gantry, folder)
    try:
        with sync_playwright() as playwright:
            chromium = shutil.which("chromium") or "/usr/bin/chromium"
            browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
            context = browser.new_context(viewport={"width": 1000, "height": 900}, color_scheme="light")
            context.grant_permissions(["clipboard-read", "clipboard-write"], origin=up.url.rstrip("/"))
            page = context.new_page()
            wrong = []
            page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
            page.on("pageerror", lambda error: wrong.append(str(error)))
            page.goto(up.url)
            uploads(page)
            for check in [copies, names, keyboard, colours]:
                check(page)
            picture(page, pictures, "page-light", 1000)
            page.emulate_media(color_scheme="dark")
            picture(page, pictures, "page-dark", 1000)
            page.emulate_media(color_scheme="light")
            narrow(page)
            picture(page, pictures, "page-narrow", 1200)
            page.set_viewport_size({"width": 1000, "height": 900})
            assert wrong == [], wrong
            hostile(page)
            strangers(up)
            streams(up, page)
            without_scripts(browser, up)
            picture(one_file(context, gantry, folder, "team/old/0.9.0.tar"), pictures, "page-one-upload", 900)
            browser.close()
    finally:
        up.stop()
        shutil.rmtree(folder, ignore_errors=True)
    print("checked the page in a browser")


if __name__ == "__main__":
    main(sys.argv[1], pathlib.Path(sys.argv[2]) if len(sys.argv) > 2 else None)
