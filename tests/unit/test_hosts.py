import string

import pytest
from hypothesis import given
from hypothesis import strategies as st
from urllib3.util import parse_url

from modelhaul.domain.errors import UntrustedHostError
from modelhaul_sources.hosts import HostPolicy, parse_origin

HUB = HostPolicy.for_hub("https://huggingface.co", allowed_hosts=["*.Mirror.example", "cdn.example"])
OWN = HostPolicy.for_hub("https://hub.corp.example:8443/")
LOCAL = HostPolicy.for_hub("http://192.168.7.9:5000", local_mode=True)


@pytest.mark.parametrize(
    ("policy", "url"),
    [
        (HUB, "https://huggingface.co/api/models/a/b"),
        (HUB, "https://HuggingFace.co:443/a?b=c#d"),
        (HUB, "https://us.aws.cdn.hf.co/x?Policy=a&Signature=b~c"),
        (HUB, "https://cdn-lfs-us-1.hf.co/x"),
        (HUB, "https://cas-bridge.xethub.hf.co/x"),
        (HUB, "https://cdn-lfs.huggingface.co/x"),
        (HUB, "https://mirror.example/x"),
        (HUB, "https://a.b.mirror.example/x"),
        (HUB, "https://cdn.example"),
        (OWN, "https://hub.corp.example:8443/a"),
        (OWN, "https://hub.corp.example/a"),
        (OWN, "https://us.aws.cdn.hf.co/x"),
        (LOCAL, "http://192.168.7.9:5001/a"),
        (LOCAL, "http://127.0.0.1:1234/a"),
        (LOCAL, "http://localhost/a"),
        (LOCAL, "http://[::1]:80/a"),
        (LOCAL, "https://huggingface.co/a"),
    ],
)
def test_trusted_addresses_are_accepted(policy: HostPolicy, url: str) -> None:
    assert policy.check_url(url) == parse_origin(url)


@pytest.mark.parametrize(
    ("policy", "url"),
    [
        (HUB, "http://huggingface.co/a"),
        (HUB, "https://huggingface.co:8443/a"),
        (HUB, "https://huggingface.co:80/a"),
        (HUB, "https://evilhuggingface.co/a"),
        (HUB, "https://huggingface.co.evil.example/a"),
        (HUB, "https://huggingface.co./a"),
        (HUB, "https://.hf.co.evil/a"),
        (HUB, "https://evil.example/huggingface.co"),
        (HUB, "https://evil.example#.huggingface.co"),
        (HUB, "https://evil.example?.huggingface.co"),
        (HUB, "https://evil.example\\.huggingface.co/"),
        (HUB, "https://evil.example\\@huggingface.co/"),
        (HUB, "https://huggingface.co\\@evil.example/"),
        (HUB, "https://user:secret@huggingface.co/a"),
        (HUB, "https://huggingface.co@evil.example/a"),
        (HUB, "https://huggingface.co:443@evil.example/a"),
        (HUB, "https://huggingface.co%2eevil.example/a"),
        (HUB, "https://huggingface。co/a"),
        (HUB, "https://\uff48uggingface.co/a"),
        (HUB, "https://hf.co\t.evil.example/a"),
        (HUB, "https://huggingface.co/a\r\nX-Header: b"),
        (HUB, " https://huggingface.co/a"),
        (HUB, "//huggingface.co/a"),
        (HUB, "/api/models"),
        (HUB, "https:huggingface.co/a"),
        (HUB, "https:///huggingface.co/a"),
        (HUB, "ftp://huggingface.co/a"),
        (HUB, "file:///etc/passwd"),
        (HUB, "HTTPS://huggingface.co/a"),
        (HUB, ""),
        (HUB, "https://127.0.0.1/a"),
        (HUB, "https://localhost/a"),
        (HUB, "https://[::1]/a"),
        (HUB, "https://[::ffff:127.0.0.1]/a"),
        (HUB, "https://169.254.169.254/latest/meta-data"),
        (HUB, "https://2130706433/a"),
        (HUB, "https://0x7f.1/a"),
        (HUB, "https://0/a"),
        (HUB, "https://10.0.0.1/a"),
        (OWN, "http://hub.corp.example:8443/a"),
        (OWN, "https://hub.corp.example:8444/a"),
        (OWN, "https://sub.hub.corp.example/a"),
        (HostPolicy.for_hub("http://127.0.0.1:8000"), "http://127.0.0.1:8000/a"),
        (HostPolicy.for_hub("https://localhost:8000"), "https://localhost:8000/a"),
        (HostPolicy.for_hub("http://huggingface.co"), "http://huggingface.co/a"),
        (LOCAL, "http://huggingface.co/a"),
        (LOCAL, "http://192.168.7.10:5000/a"),
        (LOCAL, "http://169.254.169.254/a"),
        (LOCAL, "http://127.0.0.1.evil.example/a"),
        (LOCAL, "http://127.0.0.1:80@evil.example/a"),
    ],
)
def test_all_other_addresses_are_refused(policy: HostPolicy, url: str) -> None:
    with pytest.raises(UntrustedHostError) as caught:
        policy.check_url(url)
    assert "secret" not in caught.value.detail


@pytest.mark.parametrize(
    "url",
    [
        "https://api.github.com/repos/o/r",
        "https://github.com/o/r.git/info/lfs/objects/batch",
        "https://raw.githubusercontent.com/o/r/c/f",
        "https://github-cloud.githubusercontent.com/alambic/media/1?X-Amz-Signature=a",
        "https://github-cloud.s3.amazonaws.com/alambic/media/1?X-Amz-Signature=a",
        "https://objects.githubusercontent.com/x",
    ],
)
def test_github_and_where_its_links_lead_may_be_fetched(url: str) -> None:
    policy = HostPolicy.for_github("https://api.github.com", "https://github.com", "https://raw.githubusercontent.com")
    policy.check_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "http://github.com/x",
        "https://github.com.evil.example/x",
        "https://github.com@evil.example/x",
        "https://evil-github.com/x",
        "https://s3.amazonaws.com/github-cloud/x",
        "https://other.s3.amazonaws.com/x",
        "https://github.io/x",
        "https://huggingface.co/x",
        "https://localhost/x",
        "https://169.254.169.254/x",
        "https://git.corp.example:8443/x",
    ],
)
def test_elsewhere_github_does_not_lead(url: str) -> None:
    policy = HostPolicy.for_github("https://api.github.com", "https://github.com", "https://raw.githubusercontent.com")
    with pytest.raises(UntrustedHostError):
        policy.check_url(url)


def test_an_enterprise_servers_site_is_the_operators_own() -> None:
    policy = HostPolicy.for_github(
        "https://api.git.corp.example", "https://git.corp.example", allowed_hosts=["*.store.corp"]
    )
    for url in ("https://api.git.corp.example/x", "https://git.corp.example/x", "https://lfs.store.corp/x"):
        policy.check_url(url)
    policy.check_address("git.corp.example", "10.1.2.3")
    with pytest.raises(UntrustedHostError):
        policy.check_address("github.com", "10.1.2.3")


def test_the_words_say_what_to_do() -> None:
    with pytest.raises(UntrustedHostError, match=r"https://evil\.example is not an allowed host\.$"):
        HUB.check_url("https://evil.example/path?token=1")
    with pytest.raises(UntrustedHostError, match="on the local stack only"):
        HUB.check_url("http://huggingface.co/")


@given(st.text(alphabet=string.ascii_letters + string.digits + ".-_:/\\@?#%[] \t\n\x00é", max_size=40))
def test_whatever_is_accepted_leads_to_a_trusted_host_for_the_http_client_as_well(text: str) -> None:
    for url in (f"https://{text}", f"https://huggingface.co{text}", f"https://{text}huggingface.co/"):
        try:
            origin = HUB.check_url(url)
        except UntrustedHostError:
            continue
        seen = parse_url(url)
        assert (seen.scheme, seen.host, seen.port or 443, seen.auth) == (*origin, None)
        assert origin.host.endswith(("huggingface.co", "hf.co", "mirror.example", "cdn.example"))


@pytest.mark.parametrize(
    "address", ["3.165.160.12", "2600:9000:2490::1", "::ffff:3.165.160.12", "64:ff9b::3.165.160.12"]
)
def test_public_addresses_may_be_connected_to(address: str) -> None:
    HUB.check_address("huggingface.co", address)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "::1",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.0.1",
        "169.254.169.254",
        "fe80::1",
        "fe80::1%eth0",
        "fd00:ec2::254",
        "0.0.0.0",
        "::",
        "::ffff:10.0.0.1",
        "::ffff:169.254.169.254",
        "100.64.0.1",
        "224.0.1.1",
        "ff0e::1",
        "64:ff9b::169.254.169.254",
        "64:ff9b:1::10.0.0.1",
        "::169.254.169.254",
        "2002:a00:1::",
    ],
)
@pytest.mark.parametrize("host", ["huggingface.co", "us.aws.cdn.hf.co"])
def test_a_public_name_must_not_lead_inside(host: str, address: str) -> None:
    with pytest.raises(UntrustedHostError, match="not on the public internet"):
        HUB.check_address(host, address)


def test_a_public_source_may_be_in_the_operators_network_if_they_say_so() -> None:
    policy = HostPolicy.for_hub("https://huggingface.co", allowed_hosts=["huggingface.co"])
    policy.check_address("huggingface.co", "10.1.2.3")


def test_the_operators_own_hosts_may_be_private_but_never_this_machine() -> None:
    for policy, host in ((OWN, "hub.corp.example"), (HUB, "files.mirror.example")):
        policy.check_address(host, "10.1.2.3")
        for address in ("127.0.0.1", "169.254.169.254", "::ffff:127.0.0.1"):
            with pytest.raises(UntrustedHostError):
                policy.check_address(host, address)
    LOCAL.check_address("localhost", "127.0.0.1")
