"""The page answers in headless Chromium, served from the loopback address, as Python does."""

import functools
import http.server
import importlib.util
import json
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from falconet import load_model
from falconet.checkpoints.convert import convert
from falconet.deploy.engines import ExportedModel
from falconet.deploy.parity import box_differences, generated_pictures, too_large
from falconet.deploy.web_format import export_page
from falconet.tasks.build import load_config
from falconet.tasks.predictor import to_image

FLAGS = (
    *('--headless=new', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run'),
    *(
        '--disable-sync',
        '--disable-background-networking',
        '--disable-component-update',
        '--window-size=1400,1000',
    ),
    *('--use-fake-device-for-media-stream', '--use-fake-ui-for-media-stream'),
)
LISTEN = """
window.answers = [];
document.addEventListener('falconet-answer', ({ detail }) => {
  const plain = {};
  for (const [name, { dims, data }] of Object.entries(detail.outputs)) plain[name] = [dims, Array.from(data)];
  window.answers.push({ ...detail, outputs: plain });
});
"""
DROP = """
const [address, name, done] = arguments;
fetch(address).then((response) => response.blob()).then((blob) => {
  const dataTransfer = new DataTransfer();
  dataTransfer.items.add(new File([blob], name, { type: blob.type }));
  document.body.dispatchEvent(new DragEvent('drop', { dataTransfer, bubbles: true, cancelable: true }));
  done();
});
"""


@pytest.fixture(scope='session')
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Headless Chromium with a profile of its own, or the test is skipped."""
    program, driver = shutil.which('chromium'), shutil.which('chromedriver')
    if importlib.util.find_spec('selenium') is None or program is None or driver is None:
        pytest.skip('needs selenium, chromium and chromedriver (Debian: chromium chromium-driver)')
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = program
    for flag in (*FLAGS, f'--user-data-dir={tmp_path_factory.mktemp("profile")}'):
        options.add_argument(flag)
    service = webdriver.ChromeService(executable_path=driver)
    chromium = webdriver.Chrome(options=options, service=service)
    chromium.set_script_timeout(60)
    yield chromium
    chromium.quit()


class Quiet(http.server.SimpleHTTPRequestHandler):
    """What `python -m http.server` serves with, without its log."""

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass


@pytest.fixture
def serve() -> Iterator[Callable[[Path], Any]]:
    """Serve a folder from the loopback address; returns a server with its `address`."""
    servers = []

    def start(folder: Path) -> Any:
        server: Any = http.server.ThreadingHTTPServer(
            ('127.0.0.1', 0), functools.partial(Quiet, directory=str(folder))
        )
        server.address = f'http://127.0.0.1:{server.server_address[1]}/'
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def wait(browser: Any, condition: str, seconds: float = 30) -> Any:
    """Return a JavaScript expression's value as soon as it is true of the page."""
    from selenium.webdriver.support.wait import WebDriverWait

    return WebDriverWait(browser, seconds, poll_frequency=0.02).until(
        lambda driver: driver.execute_script(f'return {condition}')
    )


def open_page(browser: Any, address: str) -> None:
    browser.get(address)
    state = wait(browser, "document.documentElement.getAttribute('data-state')")
    assert state == 'ready', browser.find_element('id', 'problem').text
    browser.execute_script(LISTEN)


def answers_for(browser: Any, *photographs: Path) -> list[dict[str, Any]]:
    """Choose photographs and return what the graph said of each."""
    before = browser.execute_script('return answers.length')
    browser.find_element('id', 'files').send_keys('\n'.join(map(str, photographs)))
    wait(browser, f'answers.length >= {before + len(photographs)}')
    found = browser.execute_script(f'return answers.slice({before})')
    for each in found:
        each['outputs'] = {
            name: np.array(data).reshape(dims) for name, (dims, data) in each['outputs'].items()
        }
    return found


def write_photographs(folder: Path) -> list[Path]:
    """Without loss, so that the browser sees the very pixels that Python does."""
    paths = []
    for seed, size in enumerate([(240, 320), (500, 260), (50, 40)]):
        paths.append(folder / f'photo{seed}.png')
        Image.fromarray(generated_pictures(size, count=1, seed=seed)[0]).save(paths[-1])
    return paths


@pytest.mark.parametrize('task', ['classification', 'detection', 'segmentation'])
def test_the_page_says_what_python_says(
    task: str, page: Callable[[str], Path], browser: Any, serve: Callable[[Path], Any], tmp_path: Path
) -> None:
    photographs = write_photographs(tmp_path)
    open_page(browser, serve(page(task)).address)
    program = ExportedModel(page(task) / 'model.onnx')
    predicted = load_model(page(task).parent / 'best.pth').predict(photographs)
    for path, result, found in zip(photographs, predicted, answers_for(browser, *photographs), strict=True):
        expected = program.run(to_image(path)[None])
        assert found['name'] == path.name
        if task == 'classification':
            np.testing.assert_allclose(found['outputs']['scores'], expected['scores'], atol=1e-4)
            assert found['outputs']['scores'].argmax() == result.label
        elif task == 'detection':
            assert expected['count'][0] > 0
            assert not too_large(box_differences(expected, found['outputs']))
        else:
            assert (found['outputs']['mask'] == expected['mask']).mean() > 0.999
            assert (found['outputs']['mask'][0] == result.mask).mean() > 0.99
    # What is drawn is said as well.
    canvas = browser.find_element('css selector', 'figure canvas')
    assert canvas.get_attribute('role') == 'img'
    assert photographs[-1].name in canvas.get_attribute('aria-label')
    wait(browser, f"document.getElementById('status').textContent.startsWith('{photographs[-1].name}: ')")


def test_a_dropped_photograph_is_turned_as_its_exif_says(
    page: Callable[[str], Path], browser: Any, serve: Callable[[Path], Any], tmp_path: Path
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    photograph = Image.fromarray(generated_pictures((120, 200), count=1)[0])
    photograph.save(tmp_path / 'turned.jpg', exif=exif)
    open_page(browser, serve(page('detection')).address)
    shutil.copy(tmp_path / 'turned.jpg', page('detection') / 'turned.jpg')
    browser.execute_async_script(DROP, 'turned.jpg', 'turned.jpg')
    (found,) = wait(browser, 'answers.length && answers')
    (page('detection') / 'turned.jpg').unlink()
    assert (found['width'], found['height']) == (120, 200)


def test_names_are_shown_as_text_and_nothing_comes_from_elsewhere(
    page: Callable[[str], Path], browser: Any, serve: Callable[[Path], Any], tmp_path: Path
) -> None:
    folder = tmp_path / 'page'
    shutil.copytree(page('classification'), folder)
    about = json.loads((folder / 'model.json').read_text())
    about['classes'] = ['<img src=x onerror="window.broken=1">'] * 3
    (folder / 'model.json').write_text(json.dumps(about))
    address = serve(folder).address
    open_page(browser, address)
    answers_for(browser, write_photographs(tmp_path)[0])
    assert '<img src=x' in browser.find_element('css selector', 'figcaption li').text
    assert not browser.find_elements('css selector', 'figure img')
    assert browser.execute_script('return window.broken') is None
    loaded = browser.execute_script("return performance.getEntriesByType('resource').map(({ name }) => name)")
    loaded = [name for name in loaded if not name.startswith('blob:')]
    assert len(loaded) > 3
    assert all(name.startswith(address) for name in loaded)


def test_it_works_without_a_network_after_the_first_load_and_then_has_threads(
    page: Callable[[str], Path], browser: Any, serve: Callable[[Path], Any], tmp_path: Path
) -> None:
    server = serve(page('detection'))
    open_page(browser, server.address)
    assert browser.execute_script('return crossOriginIsolated') is False
    assert 'one thread' in browser.find_element('id', 'about').text
    browser.execute_async_script('navigator.serviceWorker.ready.then(arguments[0])')
    server.shutdown()
    server.server_close()
    open_page(browser, server.address)
    assert browser.execute_script('return crossOriginIsolated') is True
    photograph = write_photographs(tmp_path)[0]
    (found,) = answers_for(browser, photograph)
    expected = ExportedModel(page('detection') / 'model.onnx').run(to_image(photograph)[None])
    assert not too_large(box_differences(expected, found['outputs']))


def test_the_camera_is_switched_on_and_off_with_a_button(
    page: Callable[[str], Path], browser: Any, serve: Callable[[Path], Any]
) -> None:
    open_page(browser, serve(page('detection')).address)
    button = browser.find_element('id', 'camera')
    button.send_keys('\n')  # by the keyboard
    wait(browser, 'answers.length >= 3')
    assert button.get_attribute('aria-pressed') == 'true'
    button.send_keys('\n')
    assert button.get_attribute('aria-pressed') == 'false'
    assert len(browser.find_elements('css selector', 'figure')) == 1


def test_what_is_no_picture_is_said(
    page: Callable[[str], Path], browser: Any, serve: Callable[[Path], Any], tmp_path: Path
) -> None:
    (tmp_path / 'broken.jpg').write_bytes(b'\xff\xd8nothing')
    open_page(browser, serve(page('detection')).address)
    browser.find_element('id', 'files').send_keys(str(tmp_path / 'broken.jpg'))
    wait(browser, "document.getElementById('problem').textContent.includes('broken.jpg is no picture')")


def test_a_page_from_the_file_system_says_that_it_needs_a_server(
    page: Callable[[str], Path], browser: Any
) -> None:
    browser.get((page('detection') / 'index.html').as_uri())
    wait(browser, "document.documentElement.getAttribute('data-state') === 'stopped'")
    assert 'python3 -m http.server' in browser.find_element('id', 'problem').text


def test_a_browser_without_simd_is_told_so(
    page: Callable[[str], Path], browser: Any, serve: Callable[[Path], Any]
) -> None:
    script = browser.execute_cdp_cmd(
        'Page.addScriptToEvaluateOnNewDocument', {'source': 'WebAssembly.validate = () => false;'}
    )
    try:
        browser.get(serve(page('detection')).address)
        wait(browser, "document.documentElement.getAttribute('data-state') === 'stopped'")
        assert 'no WebAssembly SIMD' in browser.find_element('id', 'problem').text
    finally:
        browser.execute_cdp_cmd('Page.removeScriptToEvaluateOnNewDocument', script)


def test_phones_have_no_sideways_scrolling(
    page: Callable[[str], Path], browser: Any, serve: Callable[[Path], Any], tmp_path: Path
) -> None:
    open_page(browser, serve(page('classification')).address)
    size = {'width': 360, 'height': 740, 'deviceScaleFactor': 1, 'mobile': True}
    browser.execute_cdp_cmd('Emulation.setDeviceMetricsOverride', size)
    try:
        answers_for(browser, *write_photographs(tmp_path))
        assert browser.execute_script('return document.documentElement.scrollWidth') <= 360
        for button in browser.find_elements('css selector', 'button'):
            assert button.size['height'] >= 44
    finally:
        browser.execute_cdp_cmd('Emulation.clearDeviceMetricsOverride', {})


def test_the_lines_in_the_documents_run(
    page: Callable[[str], Path], browser: Any, serve: Callable[[Path], Any], tmp_path: Path, root: Path
) -> None:
    text = (root / 'docs/web.md').read_text(encoding='utf-8')
    (block,) = re.findall(r'^```js\n(.*?)^```$', text, re.M | re.S)
    assert len(block.splitlines()) <= 12
    folder = tmp_path / 'page'
    shutil.copytree(page('detection'), folder)
    photograph = generated_pictures((240, 320), count=1)[0]
    Image.fromarray(photograph).save(folder / 'photo.jpg', format='PNG')
    (folder / 'lines.mjs').write_text(
        f'{block}\nwindow.boxes = [answer.boxes.dims, Array.from(answer.boxes.data)];'
    )
    (folder / 'lines.html').write_text('<script type="module" src="lines.mjs"></script>')
    browser.get(serve(folder).address + 'lines.html')
    dims, data = wait(browser, 'window.boxes')
    expected = ExportedModel(folder / 'model.onnx').run(photograph[None])
    np.testing.assert_allclose(np.array(data).reshape(dims), expected['boxes'], atol=0.05)


def test_a_real_detector_finds_the_people_that_python_finds(
    real_data: Path,
    root: Path,
    tmp_path: Path,
    runtime: str | None,
    browser: Any,
    serve: Callable[[Path], Any],
) -> None:
    config = load_config(root / 'configs/ssdlite_tf_person.py')
    weights = real_data / 'weights/ssdlite_mobilenetv2_person_tf_variables.npz'
    convert(str(weights), tmp_path / 'person.pth', classes=['person'], config=config)
    page = export_page(tmp_path / 'person.pth', out=tmp_path, runtime=runtime)
    assert page.size < 30e6
    photographs = sorted((real_data / 'coco/val2017').glob('*.jpg'))[:16]
    open_page(browser, serve(page.path).address)
    model = load_model(tmp_path / 'person.pth')
    sure = 0
    for path, found in zip(photographs, answers_for(browser, *photographs), strict=True):
        result, outputs = model.predict(path), found['outputs']
        for box, score in zip(result.boxes, result.scores, strict=True):
            if score < 0.5:
                continue
            apart = np.abs(outputs['boxes'][0] - box).max(axis=1)
            place = int(apart.argmin())
            # One of the photographs has a colour profile that would move boxes by 3 pixels.
            assert apart[place] < 0.05
            assert abs(outputs['scores'][0, place] - score) < 0.01
            sure += 1
    assert sure >= 5
