"""Chat templates, compared with the sandbox in which transformers renders them."""

import json
import random

import pytest
from jinja2 import StrictUndefined, TemplateError
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from modelhaul.domain.findings import FindingKind, Severity
from modelhaul.inspection.formats.configurations import inspect_configuration
from modelhaul.inspection.formats.templates import MAX_TEMPLATE, inspect_template, inspect_template_file
from modelhaul.inspection.windows import ContentError

# Modeled on the templates of well-known models, each with its particular features.
PLAIN = {
    "chatml": "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + "
    "'<|im_end|>' + '\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
    "llama-3": "{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = "
    "'<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' + message['content'] | trim + '<|eot_id|>' %}"
    "{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}",
    "llama-3-tools": """
{{- bos_token }}
{%- if not date_string is defined %}{%- set date_string = strftime_now("%d %b %Y") %}{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}{%- set system_message = "" %}{%- endif %}
{%- for t in tools %}{{- t | tojson(indent=4) }}{%- endfor %}
{%- for message in messages %}
    {%- if 'tool_calls' in message %}
        {%- if not message.tool_calls|length == 1 %}{{ raise_exception("One call only") }}{%- endif %}
        {%- set tool_call = message.tool_calls[0].function %}
        {{- '{"name": "' + tool_call.name + '", "arguments": ' }}
        {{- tool_call.arguments|tojson }}
    {%- endif %}
{%- endfor %}
""",
    "mistral": "{{ bos_token }}{% for message in messages %}{% if (message.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate') }}{% endif %}{% if message['role'] == 'user' %}"
    "{{ '[INST] ' + message['content'] + ' [/INST]' }}{% else %}{{ message['content'] + eos_token }}{% endif %}"
    "{% endfor %}",
    "qwen-tools": """
{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step_tool and message.role == "user" and message.content is string and
       not(message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}
        {%- set ns.multi_step_tool = false %}{%- set ns.last_query_index = index %}
    {%- endif %}
{%- endfor %}
{{- messages[ns.last_query_index].content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') }}
{%- for message in messages %}{%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}
    {{- '<|im_end|>\\n' }}{%- endif %}{%- endfor %}
""",
    "qwen-coder": """
{%- macro render_extra_keys(json_dict, handled_keys) -%}
    {%- if json_dict is mapping %}
        {%- for json_key in json_dict if json_key not in handled_keys %}
            {%- set rendered = json_dict[json_key] | tojson | safe %}
            {{- '\n<' ~ json_key ~ '>' ~ rendered ~ '</' ~ json_key ~ '>' }}
        {%- endfor %}
    {%- endif %}
{%- endmacro -%}
{%- for tool in tools %}
    {%- for param_name, param_fields in tool.parameters.properties|items %}
        {{- render_extra_keys(param_fields, ['name', 'type', 'description']) }}
    {%- endfor %}
    {{- render_extra_keys(tool, ['type', 'name', 'parameters']) }}
{%- endfor %}
""",
    "deepseek-r1": "{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}"
    "{% set ns = namespace(is_first=false, is_tool=false, is_output_first=true, system_prompt='') %}"
    "{%- for message in messages %}{%- if message['role'] == 'system' %}{% set ns.system_prompt = message['content'] %}"
    "{%- endif %}{%- endfor %}{{bos_token}}{{ns.system_prompt}}{%- for message in messages %}"
    "{%- if message['role'] == 'assistant' and message['content'] is not none %}{% set content = message['content'] %}"
    "{% if '</think>' in content %}{% set content = content.split('</think>')[-1] %}{% endif %}"
    "{{'<\uff5cAssistant\uff5c>' + content + '<\uff5cend▁of▁sentence\uff5c>'}}{%- endif %}{%- endfor %}",
    "gemma": "{{ bos_token }}{%- for message in messages -%}{%- if (message['role'] == 'assistant') -%}{%- set role = "
    "\"model\" -%}{%- else -%}{%- set role = message['role'] -%}{%- endif -%}{{ '<start_of_turn>' + role + '\n' }}"
    "{%- if message['content'] is iterable -%}{%- for item in message['content'] -%}{{ item['text'] | trim }}"
    "{%- endfor -%}{%- endif -%}{%- endfor -%}",
    "named-namespaces": """
{%- macro next_image(state) -%}{{- prompts[state.index] -}}{%- set state.index = state.index + 1 -%}{%- endmacro -%}
{%- set ns = namespace(index=0, name='', seen=[]) -%}
{%- for tool in tools -%}
    {%- set first = tool.name.split('.')[0] -%}
    {%- if first not in ns.seen -%}{%- set ns.seen = ns.seen + [first] -%}{%- endif -%}
{%- endfor -%}
{%- for first in ns.seen -%}{{- descriptions[first] if first in descriptions else '' -}}{%- endfor -%}
{{- next_image(ns) -}}{%- set ns.name = 'a ' ~ ns.index -%}
""",
    "generation": "{% for message in messages %}{% if message.role == 'assistant' %}{% generation %}"
    "{{ message.content }}{% endgeneration %}{% else %}{{ message.content }}{% continue %}{% endif %}{% endfor %}",
    "plain-formats": "{{ '{:>10}|{}'.format(messages|length, bos_token) }}{{ '%s: %d' % (bos_token, 3) }}"
    "{% for p in tools %}{{ p.format }}{{ p['format'] }}{{ p.parts | map(attribute='text') | join('_') }}{% endfor %}",
}

UNSAFE = [
    "{{ ''.__class__ }}",
    "{{ ''['__class__'] }}",
    "{{ ''|attr('__class__') }}",
    "{{ ''|attr('__cl' ~ 'ass__') }}",
    "{{ ''['_' * 2 ~ 'class' ~ '_' * 2] }}",
    "{{ ''['\\x5f\\x5fclass\\x5f\\x5f'] }}",
    "{{ ''['__' 'class__'] }}",
    "{{ ''['%c%cclass%c%c' % (95, 95, 95, 95)] }}",
    "{{ ''['ssalc'|reverse] }}",
    "{{ ''['xxclassxx'|replace('x', '_')] }}",
    "{{ ''[['__', 'class', '__']|join] }}",
    "{{ ''['a__class__'[1:]] }}",
    "{{ ''[' __class__'.strip()] }}",
    "{{ ''[dict(__class__=1)|first] }}",
    "{{ ''[(lipsum|string)[18]] }}",
    "{% set k = '__class__' %}{{ ''[k] }}",
    "{% set k %}__class__{% endset %}{{ ''[k] }}",
    "{% set ns = namespace(k='') %}{% set ns.k = '__class__' %}{{ ''[ns.k] }}",
    "{% set ns = namespace(k='x') %}{% set m = ns %}{% set m.k = '__class__' %}{{ ''[ns.k] }}",
    "{% set d = {'n': namespace(k='x')} %}{% set m = d.n %}{% set m.k = '__class__' %}{{ ''[d.n.k] }}",
    "{% set ns = namespace(k='__class__') %}{{ ''[(ns ~ '')[17:26]] }}",
    "{% set ns = namespace(k='__class__') %}{{ ''[(ns ~ ns)[17:26]] }}",
    "{% set ns = namespace({'k': '__class__'}) %}{{ ''[ns.k] }}",
    "{% for k in ['__class__'] %}{{ ''[k] }}{% endfor %}",
    "{% for k in ['a', '__class__'] %}{{ ''[loop.previtem or loop.nextitem] }}{% endfor %}",
    "{% macro m(x, k) %}{{ x[k] }}{% endmacro %}{{ m('', '__class__') }}",
    "{% macro m(x, k='__class__') %}{{ x[k] }}{% endmacro %}{{ m('') }}",
    "{% macro m(x) %}{{ x[varargs[0]] }}{% endmacro %}{{ m('', '__class__') }}",
    "{% macro m(x) %}{% for k in kwargs %}{{ x[k] }}{% endfor %}{% endmacro %}{{ m('', __class__=1) }}",
    "{% macro m(x, k) %}{{ x[k] }}{% endmacro %}{% set f = m %}{{ f('', '__class__') }}",
    "{% macro m() %}{{ caller('__class__') }}{% endmacro %}{% call(k) m() %}{{ ''[k] }}{% endcall %}",
    "{% with k = '__class__' %}{{ ''[k] }}{% endwith %}",
    "{{ ['']|map(attribute='__class__')|list }}",
    "{{ ['']|map('attr', '__class__')|list }}",
    "{{ [['']]|map('map', 'attr', '__class__')|map('list')|list }}",
    "{{ ['']|selectattr('__class__')|list }}",
    "{{ ['']|groupby('__class__') }}",
    "{{ ['']|sort(attribute='__class__') }}",
    "{{ ['']|sum(attribute='__class__') }}",
    "{{ '{0.__class__}'.format('') }}",
    "{{ '{0[__class__]}'.format('') }}",
    "{{ '{:{0.__class__}}'.format('') }}",
    "{{ '{a.__class__}'.format_map({'a': ''}) }}",
    "{{ ('{0.__cl' ~ 'ass__}').format('') }}",
    "{{ ('{0.__class__}'|attr('format'))('') }}",
    "{% set f = '{0.__class__}' %}{{ f.format('') }}",
    "{{ dict.mro() }}",
    "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    "{{ cycler.next }}",
    "{{ joiner['x'] }}",
    "{{ lipsum.__globals__ }}",
    "{{ lipsum(1) }}",
    "{{ self }}",
    "{{ messages._private }}",
    "{% include 'x' %}",
    "{% import 'x' as x %}",
    "{% from 'x' import y %}",
    "{% extends 'x' %}",
    "{% set namespace = dict %}{% set x = namespace(a='__class__') %}{% for k in x.values() %}{{ ''[k] }}{% endfor %}",
    "{% set loop = {'index': '__class__'} %}{{ ''[loop.index] }}",
    "{% set range = dict %}{{ ''[range(__class__=1)|first] }}",
]
MUTATING = ["{{ messages.append(1) }}", "{{ {}.update({}) }}", "{{ [1]['pop']() }}", "{{ ([1]|attr('clear'))() }}"]


@pytest.mark.parametrize("source", PLAIN.values(), ids=PLAIN)
def test_templates_of_models_are_safe(source: str) -> None:
    (finding,) = inspect_template(source)
    assert (finding.kind, finding.severity) == (FindingKind.CHAT_TEMPLATE, Severity.LOW)


@pytest.mark.parametrize("source", UNSAFE)
def test_operations_that_a_sandbox_refuses_are_unsafe(source: str) -> None:
    findings = inspect_template(source)
    assert {(finding.kind, finding.severity) for finding in findings} == {(FindingKind.UNSAFE_TEMPLATE, Severity.HIGH)}
    assert all(finding.detail.endswith("(line 1)") and finding.detail.isprintable() for finding in findings)


@pytest.mark.parametrize("source", MUTATING)
def test_mutating_methods_are_medium(source: str) -> None:
    (finding,) = inspect_template(source)
    assert (finding.kind, finding.severity) == (FindingKind.UNSAFE_TEMPLATE, Severity.MEDIUM)


@pytest.mark.parametrize(
    "source",
    [
        "{{",
        "{% if %}",
        "{% unknown %}",
        "{{ 'a' }",
        "{{ " + "(" * 20_000 + "1" + ")" * 20_000 + " }}",
        "{{ " + "[" * 5_000,
        "{{ " + "1" * 5_000 + " }}",
        "{{ x[" + " + ".join(["a"] * 20_000) + "] }}",
        "{{ '\\ud800\\x4' }}",
        "{{ x[a" + "|trim" * 20_000 + "] }}",
        "x" * (MAX_TEMPLATE + 1),
    ],
    ids=lambda source: source[:20],
)
def test_unparsed_templates_have_a_reason(source: str) -> None:
    with pytest.raises(ContentError) as caught:
        inspect_template(source)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 200


def test_analysis_of_variables_is_bounded() -> None:
    backwards = "".join(f"{{% set a{number} = a{number - 1} %}}" for number in range(3_000, 0, -1))
    with pytest.raises(ContentError, match="too many variables"):
        inspect_template(f"{backwards}{{% set a0 = '__class__' %}}{{{{ x[a3000] }}}}")


@pytest.mark.slow
def test_analysis_of_calls_is_bounded() -> None:
    with pytest.raises(ContentError, match="more than 20 macros"):
        inspect_template("{% macro m(a) %}{% endmacro %}" * 1_000 + "{{ m(b) }}" * 10_000)
    with pytest.raises(ContentError, match="too many variables"):
        inspect_template("{% macro m(a, b, c, d, e, f, g, h) %}{% endmacro %}" * 20 + "{{ m(b) }}" * 10_000)


def inspect_json(content: object) -> tuple[str | None, list[Severity]]:
    data = content if isinstance(content, bytes) else json.dumps(content).encode()
    report = inspect_configuration("tokenizer_config.json", lambda start, end: data[start:end], len(data))
    assert report.format == "json"
    return report.reason, [finding.severity for finding in report.findings]


def test_templates_in_configurations() -> None:
    plain, unsafe = PLAIN["chatml"], "{{ ''.__class__ }}"
    assert inspect_json({"model_max_length": 8}) == (None, [])
    assert inspect_json({"chat_template": plain}) == (None, [Severity.LOW])
    assert inspect_json({"chat_template": None}) == (None, [])
    named = [{"name": "default", "template": plain}, {"name": "tool_use", "template": unsafe}]
    assert Severity.HIGH in inspect_json({"chat_template": named})[1]
    assert Severity.HIGH in inspect_json({"chat_template": {"default": plain, "other": unsafe}})[1]
    padding = [{"content": "x" * 100}] * 50_000
    assert Severity.HIGH in inspect_json({"padding": padding, "chat_template": unsafe})[1]
    assert inspect_json({"chat_template": "{{"})[0] is not None
    assert inspect_json(b"[" * 20_000)[0] is not None


def test_template_files() -> None:
    def inspect(data: bytes) -> tuple[str, bool, list[Severity]]:
        report = inspect_template_file(lambda start, end: data[start:end], len(data))
        return report.format, report.reason is None, [finding.severity for finding in report.findings]

    assert inspect(PLAIN["mistral"].encode()) == ("jinja", True, [Severity.LOW])
    assert inspect(b"{{ x.__class__ }}") == ("jinja", True, [Severity.HIGH])
    assert inspect(b"\xff") == ("jinja", False, [])
    assert inspect(b"{{") == ("jinja", False, [])
    assert inspect(b" " * (MAX_TEMPLATE + 1)) == ("jinja", False, [])


class Author:
    """Writes random templates that compute a name indirectly and access an attribute of that name."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.statements: list[str] = []
        self.names = 0

    def write(self) -> str:
        sink = self.random.choice(
            [
                "{{{{ ''[{key}] }}}}",
                "{{{{ ''|attr({key}) }}}}",
                "{{{{ ['']|map(attribute={key})|list }}}}",
                "{{{{ ['']|map('attr', {key})|list }}}}",
                "{{{{ ['']|rejectattr({key})|list }}}}",
                "{{{{ ('{{0.' ~ {key} ~ '}}').format('') }}}}",
            ]
        )
        key = self.build(self.random.choice(["__class__", "__doc__", "__init__", "__len__"]), self.random.randint(0, 4))
        self.statements.append(sink.format(key=key))
        return "".join(self.statements)

    def build(self, text: str, depth: int) -> str:
        """Return an expression for the text. Statements that must precede it are added to `statements`."""
        if not depth:
            return repr(text)
        ways = [self.join, self.slice, self.reverse, self.replace, self.strip, self.store, self.choose, self.field]
        ways += [self.give, self.iterate, self.capture, self.format, self.holder, self.keyword, self.pick]
        return self.random.choice(ways)(text, depth - 1)

    def join(self, text: str, depth: int) -> str:
        cut = self.random.randint(0, len(text))
        left, right = self.build(text[:cut], depth), self.build(text[cut:], depth)
        template = self.random.choice(
            ["({} ~ {})", "({} + {})", "('%s%s' % ({}, {}))", "([{}, {}]|join)", "({}~''~{})"]
        )
        return template.format(left, right)

    def slice(self, text: str, depth: int) -> str:
        return f"({self.build('xy' + text + 'z', depth)})[2:-1]"

    def reverse(self, text: str, depth: int) -> str:
        inner = self.build(text[::-1], depth)
        return self.random.choice([f"({inner}|reverse)", f"({inner})[::-1]"])

    def replace(self, text: str, depth: int) -> str:
        inner = self.build(text.replace("_", "-"), depth)
        return self.random.choice([f"({inner}|replace('-', '_'))", f"({inner}).replace('-', '_')"])

    def strip(self, text: str, depth: int) -> str:
        inner = self.build(f" {text}", depth)
        return self.random.choice([f"({inner}|trim)", f"({inner}).strip()", f"({inner}).split(' ')[1]"])

    def new_name(self) -> str:
        self.names += 1
        return f"v{self.names}"

    def store(self, text: str, depth: int) -> str:
        inner, name = self.build(text, depth), self.new_name()
        self.statements.append(
            self.random.choice([f"{{% set {name} = {inner} %}}", f"{{% set {name}, w = {inner}, 1 %}}"])
        )
        return name

    def choose(self, text: str, depth: int) -> str:
        inner = self.build(text, depth)
        template = self.random.choice(
            ["({0} if true else 'a')", "('' or {0})", "(none|default({0}, true))", "(1 and {0})"]
        )
        return template.format(inner)

    def field(self, text: str, depth: int) -> str:
        inner, name = self.build(text, depth), self.new_name()
        way = self.random.choice(
            ["{{% set {n} = namespace(k={i}) %}}", "{{% set {n} = namespace(k='a') %}}{{% set {n}.k = {i} %}}"]
        )
        self.statements.append(way.format(n=name, i=inner))
        if self.random.random() < 0.3:
            self.statements.append(f"{{% set {name}b = [{name}] %}}")
            return f"({name}b|first).k"
        return self.random.choice([f"{name}.k", f"{name}['k']"])

    def give(self, text: str, depth: int) -> str:
        inner, name = self.build(text, depth), self.new_name()
        self.statements.append(f"{{% macro {name}(a, b='x') %}}{{{{ a }}}}{{% endmacro %}}")
        return self.random.choice([f"{name}({inner})", f"{name}(a={inner})", f"{name}(*[{inner}])"])

    def iterate(self, text: str, depth: int) -> str:
        inner, name = self.build(text, depth), self.new_name()
        self.statements.append(f"{{% set {name} = namespace(k='') %}}{{% for i in [{inner}] %}}")
        self.statements.append(f"{{% set {name}.k = {self.random.choice(['i', 'loop.cycle(i)'])} %}}{{% endfor %}}")
        return f"{name}.k"

    def capture(self, text: str, depth: int) -> str:
        inner, name = self.build(text, depth), self.new_name()
        self.statements.append(f"{{% set {name} %}}{{{{ {inner} }}}}{{% endset %}}")
        return name

    def format(self, text: str, depth: int) -> str:
        inner = self.build(text, depth)
        return self.random.choice([f"('%s'|format({inner}))", f"('{{}}'.format({inner}))", f"({inner}|string)"])

    def holder(self, text: str, depth: int) -> str:
        inner = self.build(text, depth)
        template = self.random.choice(
            ["{{'a': {0}}}.a", "{{'a': {0}}}['a']", "[{0}][0]", "[{0}]|last", "{{'a': {0}}}.get('a')", "({0},)[0]"]
        )
        return f"({template.format(inner)})"

    def keyword(self, text: str, depth: int) -> str:
        return f"(dict({text}=1)|first)" if text.isidentifier() else self.build(text, depth)

    def pick(self, text: str, depth: int) -> str:
        inner = self.build(text, depth)
        template = self.random.choice(
            [
                "([{0}]|select|first)",
                "([{0}]|sort|list)[0]",
                "({{{0}: 1}}|items|first|first)",
                "([{0}]|map('upper')|first|lower)",
            ]
        )
        return template.format(inner)


def is_refused(source: str) -> bool:
    """Return whether the sandbox in which transformers renders templates refuses an operation of this template."""
    # By default a refused attribute is undefined, which is an error only if the template uses it.
    environment = ImmutableSandboxedEnvironment(extensions=["jinja2.ext.loopcontrols"], undefined=StrictUndefined)
    try:
        environment.from_string(source).render(messages=[])
    except SecurityError:
        return True
    except (TemplateError, TypeError, ValueError, AttributeError, IndexError):
        return False
    return False


def compare(seeds: range) -> int:
    refused = 0
    for seed in seeds:
        source = Author(seed).write()
        if is_refused(source):
            refused += 1
            assert any(finding.severity is Severity.HIGH for finding in inspect_template(source)), source
    return refused


@pytest.mark.slow
def test_templates_that_the_sandbox_refuses_are_unsafe() -> None:
    assert compare(range(1_000)) > 300
    for source in UNSAFE + MUTATING:
        if is_refused(source):
            assert inspect_template(source)[0].kind is FindingKind.UNSAFE_TEMPLATE
