"""Stand-ins for the producers of other clients: change the import, keep the code.

``kprod.compat.aiokafka`` has ``AIOKafkaProducer``. Where the other client is installed, exceptions are
subclasses of its own and results are its own types, so ``except`` clauses and ``isinstance`` checks go on
working; it need not be installed. docs/compatibility.md lists which of the other clients' own tests pass,
and why the rest cannot.
"""
