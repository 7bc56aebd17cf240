-- The regions of the Philippines, for maps: by the names that tills give them.
create table scout.regions (
    name text primary key check (name = lower(name)),
    region_code text not null,
    iso_code text,
    official_name text not null
);
comment on table scout.regions is
    'One row per spelling (in small letters) of a region of the Philippines, with its codes. A spelling that is missing
     may be added.';
comment on column scout.regions.region_code is 'Philippine Standard Geographic Code, 10 digits.';
comment on column scout.regions.iso_code is 'ISO 3166-2; null for a region that ISO doesn''t know.';

with regions (region_code, iso_code, official_name, names) as (
    values
        ('0100000000', 'PH-01', 'Region I (Ilocos Region)', array['region i', 'region 1', 'ilocos', 'ilocos region']),
        ('0200000000', 'PH-02', 'Region II (Cagayan Valley)', array['region ii', 'region 2', 'cagayan valley']),
        ('0300000000', 'PH-03', 'Region III (Central Luzon)', array['region iii', 'region 3', 'central luzon']),
        (
            '0400000000', 'PH-40', 'Region IV-A (CALABARZON)',
            array['region iv-a', 'region iva', 'region 4-a', 'region 4a', 'calabarzon', 'calabarzon region']
        ),
        ('0500000000', 'PH-05', 'Region V (Bicol Region)', array['region v', 'region 5', 'bicol', 'bicol region']),
        ('0600000000', 'PH-06', 'Region VI (Western Visayas)', array['region vi', 'region 6', 'western visayas']),
        ('0700000000', 'PH-07', 'Region VII (Central Visayas)', array['region vii', 'region 7', 'central visayas']),
        ('0800000000', 'PH-08', 'Region VIII (Eastern Visayas)', array['region viii', 'region 8', 'eastern visayas']),
        (
            '0900000000', 'PH-09', 'Region IX (Zamboanga Peninsula)',
            array['region ix', 'region 9', 'zamboanga peninsula']
        ),
        ('1000000000', 'PH-10', 'Region X (Northern Mindanao)', array['region x', 'region 10', 'northern mindanao']),
        ('1100000000', 'PH-11', 'Region XI (Davao Region)', array['region xi', 'region 11', 'davao', 'davao region']),
        ('1200000000', 'PH-12', 'Region XII (SOCCSKSARGEN)', array['region xii', 'region 12', 'soccsksargen']),
        (
            '1300000000', 'PH-00', 'National Capital Region (NCR)',
            array['ncr', 'national capital region', 'metro manila', 'metropolitan manila']
        ),
        (
            '1400000000', 'PH-15', 'Cordillera Administrative Region (CAR)',
            array['car', 'cordillera administrative region', 'cordillera']
        ),
        ('1600000000', 'PH-13', 'Region XIII (Caraga)', array['region xiii', 'region 13', 'caraga', 'caraga region']),
        (
            '1700000000', 'PH-41', 'MIMAROPA Region',
            array['mimaropa', 'region iv-b', 'region ivb', 'region 4-b', 'region 4b', 'region iv-b (mimaropa)']
        ),
        -- Made in 2024 of parts of VI and VII; ISO has no code for it.
        ('1800000000', null, 'Negros Island Region (NIR)', array['nir', 'negros island region']),
        -- ISO still lists it as what it followed, the Autonomous Region in Muslim Mindanao.
        (
            '1900000000', 'PH-14', 'Bangsamoro Autonomous Region In Muslim Mindanao (BARMM)',
            array[
                'barmm', 'bangsamoro', 'bangsamoro autonomous region in muslim mindanao',
                'armm', 'autonomous region in muslim mindanao'
            ]
        )
)
insert into scout.regions (name, region_code, iso_code, official_name)
select spelling, region_code, iso_code, official_name
from regions
cross join unnest(names || lower(official_name) || region_code || lower(iso_code)) as spelling
where spelling is not null;
