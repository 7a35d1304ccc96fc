// An attribute to be read instead of a method without arguments: hides the method `getter() const` and offers `name`.
%define INFINILM_ATTRIBUTE(Class, Type, name, getter, text)
%ignore infinilm::Class::getter() const;
%feature("docstring") infinilm::Class::name text;
%extend infinilm::Class {
  %immutable;
  Type name;
  %mutable;
}
%{
static Type infinilm_##Class##_##name##_get(infinilm::Class* self) { return self->getter(); }
%}
%enddef
