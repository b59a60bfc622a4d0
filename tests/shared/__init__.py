"""The conformance suite of `prefork.shared`: what must hold on every backend; and what is special to one."""
