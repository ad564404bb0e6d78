"""Does the Twitter example show tweets, of an API that checks its signature from scratch?"""

from collections.abc import AsyncIterator

import pytest

from tests.e2e import readme
from tests.e2e.client import Answer, Client
from tests.e2e.outside import served
from tests.e2e.platforms import Platform
from tests.e2e.twitter import BASE, CONFIG, Twitter, tweet
from tests.e2e.workshop import Workshop, run

TWEETS = {
    "jack": [
        tweet("jack", "just setting up my twttr"),
        tweet("jack", "short", full_text="two\nlines &amp; an entity: 你好"),
    ],
    "quiet": [],
    "Ünï code+&=~*": [tweet("Odd Name", "hello")],
}


@pytest.fixture(scope="module")
def image(workshop: Workshop) -> str:
    """The example's image."""
    return workshop.build("twitter")


@pytest.fixture
async def twitter(_engine: None) -> AsyncIterator[tuple[Twitter, str]]:
    """Twitter on this machine, and its address as functions can reach it."""
    made = Twitter(TWEETS)
    async with served(made.timeline, f"{BASE}/statuses/user_timeline.json") as address:
        yield made, f"http://{address}{BASE}"


async def log_of(client: Client, answer: Answer) -> str:
    """Return the log of a call that failed."""
    await client.ended(answer.call_id)
    return (await client.get(f"/v1/calls/{answer.call_id}/log")).text


@pytest.mark.parametrize("name", TWEETS)
async def test_the_tweets_of_an_account(
    client: Client, app: str, image: str, twitter: tuple[Twitter, str], name: str
) -> None:
    path = await client.deploy(
        app, "/tweets", image, config=CONFIG | {"TWITTER_API_URL": twitter[1]}
    )
    answer = await client.post(path, json={"username": name})
    expected = {
        "jack": "jack: just setting up my twttr\njack: two lines & an entity: 你好\n",
        "quiet": "",
        "Ünï code+&=~*": "Odd Name: hello\n",
    }
    assert answer.text == f"Looking for tweets of the account: {name}\n{expected[name]}"
    assert not twitter[0].refusals


@pytest.mark.parametrize("wrong", ["CUSTOMER_SECRET", "ACCESS_SECRET", "ACCESS_TOKEN"])
async def test_wrong_keys_are_refused(
    client: Client, app: str, image: str, twitter: tuple[Twitter, str], wrong: str
) -> None:
    config = CONFIG | {"TWITTER_API_URL": twitter[1], wrong: "another"}
    path = await client.deploy(app, "/tweets", image, config=config)
    answer = await client.post(path, json={"username": "jack"})
    assert (answer.status, answer.message) == (500, "exit code 3")
    assert "Could not authenticate you." in await log_of(client, answer)
    assert len(twitter[0].refusals) == 1


async def test_the_placeholders_of_the_guide_get_its_hint(
    client: Client, app: str, image: str
) -> None:
    config = dict.fromkeys(CONFIG, "XXXXXX")
    path = await client.deploy(app, "/tweets", image, config=config)
    answer = await client.post(path, json={"username": "jack"})
    assert (answer.status, answer.message) == (500, "exit code 3")
    assert "CUSTOMER_KEY is still the placeholder XXXXXX" in await log_of(client, answer)
    assert "apps.twitter.com" in await log_of(client, answer)


async def test_failures_are_told(
    client: Client, app: str, image: str, twitter: tuple[Twitter, str]
) -> None:
    path = await client.deploy(
        app, "/tweets", image, config=CONFIG | {"TWITTER_API_URL": twitter[1]}
    )
    for body, busy, exit_code, said in (
        (b'{"username": "nobody"}', 0, 1, "Twitter shows no account nobody"),
        (b"jack", 0, 2, "standard input is not JSON"),
        (b'{"username": "jack"}', 429, 4, "429, Rate limit exceeded"),
    ):
        twitter[0].busy = busy
        answer = await client.post(path, data=body)
        assert (answer.status, answer.message) == (500, f"exit code {exit_code}")
        assert said in await log_of(client, answer)


def test_an_api_that_does_not_answer_is_told(image: str) -> None:
    said = run(image, b'{"username": "a"}', **CONFIG, TWITTER_API_URL="http://127.0.0.1:1")
    assert said.startswith(
        "4 Looking for tweets of the account: a\nno answer from http://127.0.0.1:1/"
    )


async def test_the_readme(
    platform: Platform, client: Client, workshop: Workshop, twitter: tuple[Twitter, str]
) -> None:
    """Its commands, with keys for the placeholders and the API of the test for the public one."""
    api = f"TWITTER_API_URL={twitter[1]}"
    keys = {f'{name}="XXXXXX"': f'{name}="{value}"' for name, value in CONFIG.items()}
    here = keys | {
        "<镜像名>": f"{workshop.hub}/millrace/twitter:0.0.1",
        "fn run ": f"fn run -e {api} ",
    }
    api_of_the_app = readme.Step(f"fn apps config set twitter {api.replace('=', ' ')}")
    printed = await workshop.follow("twitter", platform.url, here, api_of_the_app)
    assert "jack: just setting up my twttr\n" in printed[1]
    assert not twitter[0].refusals
    for path in ("/v1/apps/twitter/routes/tweets", "/v1/apps/twitter"):
        assert (await client.delete(path)).status == 200
