"""The review pages in a real browser (headless Chromium): with keys alone, with two people, without scripts, on a phone."""

import contextlib
import http.server
import json
import os
import pathlib
import re
import secrets
import shutil
import subprocess
import tempfile
import threading
import time
import unittest
import urllib.error
import urllib.request

from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select, WebDriverWait

BINARY = os.environ["HOLDPOINT_BIN"]
ROOT = pathlib.Path(__file__).resolve().parents[2]
AXE = pathlib.Path(os.environ["HOLDPOINT_NODE_MODULES"]) / "axe-core/axe.min.js"
# Where the pictures go; those in the repository are made with HOLDPOINT_SCREENS=tests/e2e/screens.
SCREENS = pathlib.Path(os.environ.get("HOLDPOINT_SCREENS", os.environ["HOLDPOINT_E2E"] + "/screens"))
PEOPLE = ["support-bot", "report-bot", "maya", "li", "sam", "omar", "crm"]


class Crm(http.server.BaseHTTPRequestHandler):
    """Orders and customers that remember what was done to them."""

    orders, customers, refunds = {}, {}, []

    def state(self):
        kind, name = self.path.strip("/").split("/")[:2]
        new = {"id": name, "totalMinor": 88000, "refundedMinor": 0, "currency": "EUR"}
        if kind == "customers":
            new = {"id": name, "name": "Grace Example", "email": "grace@example.com", "creditLimitMinor": 100000}
        return (self.orders if kind == "orders" else self.customers).setdefault(name, new)

    def answer(self, status, value):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def asked(self):
        return json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"{}")

    def do_GET(self):
        self.answer(200, self.state())

    def do_PATCH(self):
        self.state().update(self.asked())
        self.answer(200, self.state())

    def do_POST(self):
        asked, order = self.asked(), self.state()
        order["refundedMinor"] += asked["amountMinor"]
        self.refunds.append((order["id"], asked["amountMinor"]))
        self.answer(201, {"order": order["id"], "amountMinor": asked["amountMinor"]})

    def log_message(self, *_):
        pass


class World:
    """The shipped example configuration and policies before a CRM of ours."""

    def __init__(self, stack):
        self.path = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for folder in ("deploy/demo", "policies", "schemas"):
            shutil.copytree(ROOT / folder, self.path / folder)
        schema = self.path / "schemas/refund.json"
        schema.write_text(schema.read_text().replace('"maxLength": 500', '"maxLength": 20000'))
        self.tokens = {name: secrets.token_hex(24) for name in PEOPLE}
        (self.path / "deploy/demo/secrets").mkdir(exist_ok=True)
        for name, token in self.tokens.items():
            (self.path / "deploy/demo/secrets" / name).write_text(token)
        self.crm = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Crm)
        threading.Thread(target=self.crm.serve_forever, daemon=True).start()
        stack.callback(self.crm.shutdown)
        config = self.path / "deploy/demo/holdpoint.yaml"
        text = config.read_text().replace("127.0.0.1:8702", f"127.0.0.1:{self.crm.server_port}")
        text = text.replace("127.0.0.1:8700", "127.0.0.1:0").replace("127.0.0.1:8701", "127.0.0.1:0")
        config.write_text(text.replace("inline_wait: 3s", "inline_wait: 0s"))
        self.log = stack.enter_context(open(self.path / "log", "w+"))
        self.process = subprocess.Popen([BINARY, "serve", "--config", str(config)], stderr=self.log)
        stack.callback(self.end)
        serving = self.serving()
        self.agents, self.admin = serving["agents"], serving["admin"]

    def serving(self):
        for _ in range(600):
            for line in (self.path / "log").read_text().splitlines():
                if '"serving"' in line:
                    return json.loads(line)
            assert self.process.poll() is None, (self.path / "log").read_text()
            time.sleep(0.02)
        raise AssertionError("`holdpoint serve` does not serve")

    def end(self):
        self.process.terminate()
        self.process.wait(timeout=40)

    def ask(self, method, url, token, body=None, headers=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(url, data, {"Authorization": f"Bearer {token}", **(headers or {})}, method=method)
        if body is not None:
            request.add_header("Content-Type", "application/json")
        try:
            with urllib.request.urlopen(request) as got:
                return got.status, json.loads(got.read())
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())

    def agent(self, method, path, body=None, headers=None):
        return self.ask(method, f"http://{self.agents}/crm{path}", self.tokens["support-bot"], body, headers)

    def evidence(self):
        make = lambda kind: self.ask(
            "POST",
            f"http://{self.agents}/-/evidence",
            self.tokens["support-bot"],
            {"kind": kind, "title": f"{kind} T-4410", "text": "The customer was charged twice."},
        )[1]["artifact"]
        return ", ".join(make(kind) for kind in ("ticket", "order"))

    def refund(self, order, amount, **more):
        """A refund that is held; the hold's id."""
        body = {"customerId": "c_204", "amountMinor": amount, "currency": "EUR", **more}
        headers = {"Holdpoint-Evidence": self.evidence(), "Holdpoint-Intent": "Refund the second charge."}
        status, told = self.agent("POST", f"/orders/{order}/refunds", body, headers)
        assert (status, told["code"]) == (409, "held"), told
        return told["hold"]

    def hold(self, hold, person="maya"):
        return self.ask("GET", f"http://{self.admin}/v1/holds/{hold}", self.tokens[person])[1]


def browser(stack, scripts=True, dark=False, size="1280,1000"):
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"):
        options.add_argument(flag)
    for flag in ("--disable-background-networking", "--disable-component-update", "--disable-sync", f"--window-size={size}"):
        options.add_argument(flag)
    options.add_argument(f"--user-data-dir={stack.enter_context(tempfile.TemporaryDirectory())}")
    if not scripts:
        options.add_experimental_option("prefs", {"profile.managed_default_content_settings.javascript": 2})
    service = webdriver.ChromeService(executable_path=shutil.which("chromedriver"))
    driver = webdriver.Chrome(options=options, service=service)
    stack.callback(driver.quit)
    if dark:
        media = {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    return driver


@unittest.skipUnless(shutil.which("chromium") and shutil.which("chromedriver"), "there is no Chromium here")
class Pages(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.stack = contextlib.ExitStack()
        cls.addClassCleanup(cls.stack.close)
        cls.world = World(cls.stack)
        SCREENS.mkdir(parents=True, exist_ok=True)

    def setUp(self):
        self.own = contextlib.ExitStack()
        self.addCleanup(self.own.close)

    def visit(self, person, path="/", **how):
        """A browser of this person, signed in by the form, at a page."""
        driver = browser(self.own, **how)
        driver.get(f"http://{self.world.admin}/sign-in")
        driver.find_element(By.ID, "token").send_keys(self.world.tokens[person], Keys.ENTER)
        self.until(driver, lambda d: "/sign-in" not in d.current_url)
        if path != "/":
            driver.get(f"http://{self.world.admin}{path}")
        return driver

    def until(self, driver, true, what="", seconds=20):
        # A list may load itself again while it is looked at.
        wait = WebDriverWait(driver, seconds, poll_frequency=0.05, ignored_exceptions=[StaleElementReferenceException])
        return wait.until(true, what)

    def press(self, driver, *keys):
        """To whatever has the focus, as a keyboard does."""
        webdriver.ActionChains(driver).send_keys(*keys).perform()

    def approve_button(self, driver):
        return driver.find_element(By.CSS_SELECTOR, "form[data-approve] button[type=submit]")

    def read_all(self, driver):
        """Presses `n` until the approval opens."""

        def opened(d):
            if self.approve_button(d).is_enabled():
                return True
            self.press(d, "n")
            return False

        self.until(driver, opened, "the approval does not open", 30)

    def state(self, hold):
        return self.world.hold(hold)["state"]

    def settled(self, driver, hold, state="succeeded"):
        self.until(driver, lambda _: self.state(hold) == state, f"{hold} is {self.state(hold)}")

    def test_a_hold_appears_is_read_and_approved_with_the_keyboard_alone(self):
        driver = self.visit("maya")
        self.until(driver, lambda d: d.find_element(By.ID, "live").text == "● live")
        order = f"o_{secrets.token_hex(3)}"
        hold = self.world.refund(order, 8800)
        self.until(driver, lambda d: order in d.find_element(By.TAG_NAME, "main").text, "the list is not live")
        for _ in driver.find_elements(By.CSS_SELECTOR, "table.lines tbody tr"):
            self.press(driver, "j")
            if order in driver.switch_to.active_element.text:
                break
        self.press(driver, Keys.ENTER)
        self.until(driver, lambda d: hold in d.current_url)
        self.assertFalse(self.approve_button(driver).is_enabled(), "nothing was read yet")
        self.press(driver, "a")
        self.assertEqual(self.state(hold), "held")
        self.read_all(driver)
        self.press(driver, "a")
        self.settled(driver, hold)
        self.assertEqual(Crm.refunds.count((order, 8800)), 1)

    def test_two_people_release_a_high_one_and_no_key_alone_does(self):
        hold = self.world.refund("o_881", 88_000)
        maya = self.visit("maya", f"/holds/{hold}")
        maya.save_screenshot(str(SCREENS / "hold.png"))
        self.until(maya, lambda d: d.find_elements(By.CSS_SELECTOR, "form[data-approve] [role=status]"))
        self.press(maya, "a")
        self.assertEqual(maya.switch_to.active_element.get_attribute("id"), "justification")
        self.vote(maya)
        self.until(maya, lambda _: self.world.hold(hold)["needs"]["people_have"] == 1)
        self.assertIn("already_counted", maya.find_element(By.TAG_NAME, "main").text)
        li = self.visit("li", f"/holds/{hold}")
        self.vote(li)
        self.settled(li, hold)

    def vote(self, driver):
        code = driver.find_element(By.CSS_SELECTOR, "code.code").text
        driver.find_element(By.ID, "justification").send_keys("second charge confirmed")
        driver.find_element(By.ID, "confirm").send_keys(code, Keys.ESCAPE)
        self.read_all(driver)
        self.approve_button(driver).click()
        self.until(driver, lambda d: "second charge confirmed" in d.find_element(By.TAG_NAME, "main").text)

    def test_without_scripts_a_high_one_is_shown_twice(self):
        hold = self.world.refund(f"o_{secrets.token_hex(3)}", 77_000)
        driver = self.visit("maya", f"/holds/{hold}", scripts=False)
        self.assertTrue(self.approve_button(driver).is_enabled())
        code = driver.find_element(By.CSS_SELECTOR, "code.code").text
        driver.find_element(By.ID, "justification").send_keys("checked")
        driver.find_element(By.ID, "confirm").send_keys(code)
        self.approve_button(driver).click()
        self.assertIn("Nothing was decided yet", driver.find_element(By.CSS_SELECTOR, ".problem[role=alert]").text)
        self.assertEqual(self.world.hold(hold)["needs"]["people_have"], 0)
        driver.find_element(By.ID, "confirm").send_keys(code)
        self.approve_button(driver).click()
        self.until(driver, lambda _: self.world.hold(hold)["needs"]["people_have"] == 1)

    def test_a_hold_that_moves_says_so_and_cannot_be_decided_as_it_was(self):
        order = f"o_{secrets.token_hex(3)}"
        hold = self.world.refund(order, 9000)
        driver = self.visit("maya", f"/holds/{hold}")
        self.until(driver, lambda d: d.find_element(By.ID, "live").text == "● live")
        other = self.visit("maya", f"/holds/{hold}")
        self.read_all(other)
        Crm.orders[order]["refundedMinor"] = 500
        self.approve_button(other).click()
        news = driver.find_element(By.ID, "news")
        self.until(driver, lambda _: news.is_displayed(), "the other page does not hear of it")
        self.assertFalse(self.approve_button(driver).is_enabled())
        self.until(driver, lambda _: self.world.hold(hold)["renewals"] == 1)
        self.press(driver, ".")
        self.until(driver, lambda d: "What changed since it was looked at first" in d.find_element(By.TAG_NAME, "main").text)
        self.assertNotIn((order, 9000), Crm.refunds)

    def test_an_argument_is_changed_and_then_approved(self):
        order = f"o_{secrets.token_hex(3)}"
        hold = self.world.refund(order, 8800)
        driver = self.visit("maya", f"/holds/{hold}")
        self.press(driver, "e")
        field = driver.switch_to.active_element
        self.assertEqual(field.get_attribute("id"), "arguments")
        text = field.get_attribute("value").replace("8800", "6600")
        field.clear()
        field.send_keys(text)
        driver.find_element(By.ID, "edit-note").send_keys("half of it was refunded before")
        driver.find_element(By.XPATH, "//button[text()='Change it']").click()
        self.until(driver, lambda d: "Changed by a reviewer" in d.find_element(By.TAG_NAME, "main").text)
        self.read_all(driver)
        self.press(driver, "a")
        self.settled(driver, hold)
        self.assertEqual([a for o, a in Crm.refunds if o == order], [6600])

    def test_alike_ones_are_decided_together_once_the_odd_ones_were_opened(self):
        orders = [f"o_{secrets.token_hex(3)}" for _ in range(3)]
        holds = [self.world.refund(order, 7100 + n, reason="batch") for n, order in enumerate(orders)]
        cluster = self.world.hold(holds[0])["alike"]["cluster"]
        driver = self.visit("maya", f"/clusters/{cluster}")
        approve = "//button[starts-with(text(), 'Approve all')]"
        self.assertFalse(driver.find_elements(By.XPATH, approve))
        for link in [a.get_attribute("href") for a in driver.find_elements(By.CSS_SELECTOR, "tr.risky a")]:
            driver.get(link)
        driver.get(f"http://{self.world.admin}/clusters/{cluster}")
        driver.find_element(By.XPATH, approve).click()
        for hold in holds:
            self.settled(driver, hold)

    def test_a_group_does_not_move_under_the_hand_that_decides_it(self):
        orders = [f"o_{secrets.token_hex(3)}" for _ in range(2)]
        holds = [self.world.refund(order, 7200 + n, reason="still") for n, order in enumerate(orders)]
        cluster = self.world.hold(holds[0])["alike"]["cluster"]
        driver = self.visit("maya", f"/clusters/{cluster}")
        self.until(driver, lambda d: d.find_element(By.ID, "live").text == "● live")
        driver.execute_script("window.still = true")
        self.world.refund(f"o_{secrets.token_hex(3)}", 7100, reason="still")
        self.until(driver, lambda d: d.find_element(By.ID, "news").is_displayed(), "nobody says that there is news")
        self.assertTrue(driver.execute_script("return window.still"), "the page was loaded again")

    def test_what_grants_opens_no_earlier_than_what_approves(self):
        hold = self.world.refund(f"o_{secrets.token_hex(3)}", 8800)
        driver = self.visit("maya", f"/holds/{hold}")
        grant = driver.find_element(By.XPATH, "//button[starts-with(text(), 'Approve') and contains(text(), 'and grant')]")
        self.assertFalse(grant.is_enabled(), "nothing was read yet")
        self.read_all(driver)
        self.assertTrue(grant.is_enabled())

    def test_a_long_argument_is_read_to_its_end_and_evidence_is_read(self):
        hold = self.world.refund(f"o_{secrets.token_hex(3)}", 8800, reason="pay " * 4000)
        driver = self.visit("maya", f"/holds/{hold}")
        status = driver.find_element(By.CSS_SELECTOR, "form[data-approve] [role=status]")

        def show(selector, block):
            for part in driver.find_elements(By.CSS_SELECTOR, selector):
                driver.execute_script("arguments[0].scrollIntoView({block: arguments[1]})", part, block)
                self.frames(driver)

        driver.execute_script("document.querySelectorAll('details[data-sent]').forEach(fold => (fold.open = true))")
        # The beginning of the long argument; all that stands above and below it, to the end.
        show("[data-hunk] tr, [data-hunk] pre, [data-hunk] p, [data-hunk] dd", "start")
        show("section.decide h2", "end")
        self.assertIn("1 to go", status.text, "the end of the argument was not in view")
        show(".fields tr", "end")
        self.until(driver, lambda _: self.approve_button(driver).is_enabled(), status.text)
        driver.refresh()
        parts = driver.find_elements(By.CSS_SELECTOR, "[data-hunk]")
        self.assertIn("Evidence", [part.find_element(By.TAG_NAME, "h2").text for part in parts])
        self.read_all(driver)

    def frames(self, driver):
        """Until the browser has looked at what is in view."""
        driver.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))")

    def test_an_executed_change_is_taken_back(self):
        customer = f"c_{secrets.token_hex(3)}"
        status, _ = self.world.agent("PATCH", f"/customers/{customer}", {"email": "new@example.com"})
        self.assertEqual(status, 200)
        driver = self.visit("omar", "/calls")
        call = driver.find_element(By.XPATH, f"//a[contains(text(), '{customer}')]").get_attribute("href")
        driver.get(call)
        self.press(driver, "u")
        self.press(driver, "the customer did not want this")
        driver.find_element(By.XPATH, "//button[text()='Take it back']").click()
        self.until(driver, lambda _: Crm.customers[customer]["email"] == "grace@example.com", "it is not taken back")

    def test_a_reason_is_chosen_with_two_keys(self):
        hold = self.world.refund(f"o_{secrets.token_hex(3)}", 8800)
        driver = self.visit("maya", f"/holds/{hold}")
        self.press(driver, "r")
        self.press(driver, "3")
        chosen = Select(driver.find_element(By.ID, "reason")).first_selected_option.get_attribute("value")
        self.assertEqual(chosen, "duplicate")
        self.press(driver, Keys.ESCAPE, "?")
        self.assertTrue(driver.find_element(By.ID, "keys").is_displayed())

    def test_two_people_talk_about_one_hold_and_leave_each_other_alone(self):
        hold = self.world.refund(f"o_{secrets.token_hex(3)}", 88000)
        maya, li = self.visit("maya", f"/holds/{hold}"), self.visit("li", f"/holds/{hold}")
        self.press(maya, "l")
        self.until(maya, lambda d: "You have it in hand" in d.find_element(By.TAG_NAME, "main").text)
        self.until(li, lambda d: d.find_element(By.ID, "news").is_displayed(), "the other one is not told")
        self.press(li, ".")
        self.until(li, lambda d: "maya has it in hand" in d.find_element(By.TAG_NAME, "main").text)
        self.assertEqual(li.find_elements(By.CSS_SELECTOR, "form[data-approve]"), [], "claimed by another person")
        self.press(maya, "c")
        self.press(maya, "Bank line 4471 says <b>the same</b>.")
        maya.find_element(By.XPATH, "//button[text()='Comment']").click()
        self.until(maya, lambda d: "<b>the same</b>" in d.find_element(By.CSS_SELECTOR, ".talk").text)
        self.press(maya, "q")
        self.assertEqual(maya.switch_to.active_element.get_attribute("id"), "ask-message")
        self.press(maya, Keys.ESCAPE, "x")
        self.assertEqual(maya.switch_to.active_element.get_attribute("id"), "escalate-why")
        self.press(maya, Keys.ESCAPE, "l")
        self.until(maya, lambda d: "You have it in hand" not in d.find_element(By.TAG_NAME, "main").text)

    def test_every_page_is_accessible_light_dark_and_on_a_phone(self):
        hold = self.world.refund(f"o_{secrets.token_hex(3)}", 8800, reason="pay\u202eeman " + "x" * 300)
        driver = self.visit("maya", size="1280,1000")
        run = self.world.hold(hold)["who"]["run"]
        pages = ["/", f"/holds/{hold}", "/sign-in", "/me", f"/runs/{run}", "/samples", "/grants", "/stop"]
        for scheme in ("light", "dark"):
            media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
            driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
            for path in pages:
                driver.get(f"http://{self.world.admin}{path}")
                self.assertEqual(self.axe(driver), [], f"{path}, {scheme}")
                name = {"/": "inbox", "/sign-in": "sign-in", pages[1]: "hold-medium"}.get(path)
                if name:
                    driver.save_screenshot(str(SCREENS / f"{name}-{scheme}.png"))
        for path in pages:
            driver.execute_cdp_cmd(
                "Emulation.setDeviceMetricsOverride", {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
            )
            driver.get(f"http://{self.world.admin}{path}")
            wide = driver.execute_script("return document.documentElement.scrollWidth - window.innerWidth")
            self.assertLessEqual(wide, 0, f"{path} is wider than a phone")
            if path == pages[1]:
                driver.save_screenshot(str(SCREENS / "hold-phone.png"))

    def test_what_operators_look_at_is_accessible(self):
        driver = self.visit("omar")
        for path in ["/audit", "/policies", "/calls", "/me", "/stop", "/agents"]:
            driver.get(f"http://{self.world.admin}{path}")
            self.assertEqual(self.axe(driver), [], path)
            self.assertTrue(driver.find_elements(By.CSS_SELECTOR, "h1"), path)

    def axe(self, driver):
        driver.execute_script(AXE.read_text())
        found = driver.execute_async_script("axe.run().then(r => arguments[arguments.length - 1](r.violations))")
        return [(v["id"], [n["html"][:120] for n in v["nodes"]][:3]) for v in found]

    def test_only_this_origin_is_ever_asked_for_anything(self):
        driver = self.visit("maya")
        asked = driver.execute_script("return performance.getEntriesByType('resource').map(e => e.name)")
        self.assertTrue(asked)
        for url in asked:
            self.assertTrue(re.match(rf"http://{re.escape(self.world.admin)}/", url), url)


if __name__ == "__main__":
    unittest.main()
