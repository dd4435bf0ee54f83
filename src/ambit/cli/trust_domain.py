"""The option by which a command learns of a mesh's former or later trust domains."""

import click

trust_domain_aliases = click.option(
    "--trust-domain-alias",
    "trust_domain_aliases",
    multiple=True,
    metavar="NAME",
    help="Another trust domain that means the same; may be repeated.",
)
